"""Cached latents and text embeddings in safetensors shards, and endless batches of them in an order that can be taken
up again.

A shard `shard-00000.safetensors` has `latents.{i}` `[T, H, W, C]` (scaled), `text.{i}` `[text_tokens, in_text_dim]`,
and JSON metadata: `{"items": [{"id": ..., "caption": ...}, ...]}`. `encode` writes them from videos. Clips of a batch
have one shape; within an epoch each shape's clips come in random order, and the leftover of a shape that does not fill
a batch is left out of that epoch.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kandinsky.atomic import replacing
from kandinsky.errors import CheckpointError


@dataclass(frozen=True)
class Batch:
    """Clips of one shape: latents `[clips, T, H, W, C]`, text `[clips, text_tokens, in_text_dim]`, captions."""

    latents: Tensor
    text: Tensor
    captions: list[str]


@dataclass(frozen=True)
class Item:
    """One clip: its shard, its number there, its name, what it shows, the shape of its latents."""

    shard: int
    number: int
    id: str
    caption: str
    shape: tuple[int, ...]


class ShardDataset:
    """All items of a folder of shards; headers are read at once, tensors when they are asked for.

    Raises:
        FileNotFoundError: there is no shard in the folder.
        CheckpointError: one is damaged.
    """

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("shard-*.safetensors"))
        if not self.files:
            raise FileNotFoundError(f"no shard-*.safetensors in {folder}")
        self.items = [item for number, file in enumerate(self.files) for item in _items(number, file)]

    def __len__(self) -> int:
        return len(self.items)

    def load(self, shard: int) -> dict[str, Tensor]:
        """All tensors of a shard."""
        return load_file(self.files[shard])

    def read(self, items: Sequence[Item]) -> tuple[list[Tensor], list[Tensor]]:
        """Latents and text of some items."""
        latents, text = [], []
        for item in items:
            with safe_open(self.files[item.shard], "pt") as handle:
                latents.append(handle.get_tensor(f"latents.{item.number}"))
                text.append(handle.get_tensor(f"text.{item.number}"))
        return latents, text


def ids_in(folder: Path) -> set[str]:
    """Ids of the clips in a folder's shards, of which there may be none."""
    return {item.id for item in ShardDataset(folder).items} if any(folder.glob("shard-*.safetensors")) else set()


def _items(shard: int, file: Path) -> Iterable[Item]:
    try:
        with safe_open(file, "pt") as handle:
            listed = json.loads(handle.metadata()["items"])
            for number, entry in enumerate(listed):
                shape = tuple(handle.get_slice(f"latents.{number}").get_shape())
                yield Item(shard, number, entry["id"], entry["caption"], shape)
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{file} is damaged or no shard: {error}; removed, its clips can be made again"
        ) from error


class Batches:
    """Endless batches.

    Args:
        dataset: where they come from.
        batch_size: clips.
        seed: of the order.
        device: where batches are wanted.
        resident: keep all data there, so that a batch is an index; for small data.

    Raises:
        ValueError: no shape has as many clips as a batch.
    """

    def __init__(
        self, dataset: ShardDataset, batch_size: int, *, seed: int, device: torch.device, resident: bool = False
    ):
        self.dataset, self.batch_size, self.seed, self.device = dataset, batch_size, seed, device
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, item in enumerate(dataset.items):
            by_shape[item.shape].append(index)
        self._groups = [by_shape[shape] for shape in sorted(by_shape)]
        if max(len(group) for group in self._groups) < batch_size:
            largest = max(len(group) for group in self._groups)
            raise ValueError(f"batch_size={batch_size}: the data has {largest} clips of one shape at most")
        self.epoch = self.position = 0
        self._order = self._shuffled(0)
        self._resident = Resident(dataset, self._groups, device) if resident else None

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        if self.position == len(self._order):
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._shuffled(self.epoch)
        indices = self._order[self.position]
        self.position += 1
        return self._read(indices)

    def first(self) -> Batch:
        """The first batch of the first epoch, whatever the position."""
        return self._read(self._shuffled(0)[0])

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a position."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._shuffled(self.epoch)

    def _shuffled(self, epoch: int) -> list[list[int]]:
        """Batches of an epoch, as indices of items."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        batches = []
        for group in self._groups:
            order = [group[index] for index in torch.randperm(len(group), generator=generator).tolist()]
            full = len(order) - len(order) % self.batch_size
            batches += [order[start : start + self.batch_size] for start in range(0, full, self.batch_size)]
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]

    def _read(self, indices: list[int]) -> Batch:
        items = [self.dataset.items[index] for index in indices]
        captions = [item.caption for item in items]
        if self._resident is not None:
            return Batch(*self._resident.take(indices), captions)
        latents, text = self.dataset.read(items)
        return Batch(torch.stack(latents).to(self.device), torch.stack(text).to(self.device), captions)


class Resident:
    """All latents, by shape, and all text on one device."""

    def __init__(self, dataset: ShardDataset, groups: list[list[int]], device: torch.device):
        latents: list[Tensor] = [torch.empty(0)] * len(dataset)
        text: list[Tensor] = [torch.empty(0)] * len(dataset)
        shards = [dataset.load(number) for number in range(len(dataset.files))]
        for index, item in enumerate(dataset.items):
            latents[index] = shards[item.shard][f"latents.{item.number}"]
            text[index] = shards[item.shard][f"text.{item.number}"]
        self._latents = [torch.stack([latents[index] for index in group]).to(device) for group in groups]
        self._text = torch.stack(text).to(device)
        self._place = {index: (number, row) for number, group in enumerate(groups) for row, index in enumerate(group)}
        self._device = device

    def take(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Latents and text of items of one shape."""
        group = self._place[indices[0]][0]
        rows = torch.tensor([self._place[index][1] for index in indices], device=self._device)
        return self._latents[group][rows], self._text[torch.tensor(indices, device=self._device)]


PER_SHARD = 1024


@dataclass(frozen=True)
class Encoded:
    """One clip: a name, what it shows, scaled latents `[T, H, W, C]`, text `[text_tokens, in_text_dim]`."""

    id: str
    caption: str
    latents: Tensor
    text: Tensor


def write_shard(folder: Path, number: int, clips: list[Encoded]) -> Path:
    """One file of clips, in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for index, clip in enumerate(clips):
        tensors[f"latents.{index}"] = clip.latents.bfloat16().cpu().contiguous().clone()
        tensors[f"text.{index}"] = clip.text.bfloat16().cpu().contiguous().clone()
    items = json.dumps([{"id": clip.id, "caption": clip.caption} for clip in clips])
    target = folder / f"shard-{number:05}.safetensors"
    with replacing(target) as partial:
        save_file(tensors, partial, metadata={"items": items})
    return target


def write_shards(clips: Iterable[Encoded], folder: Path, *, per_shard: int = PER_SHARD) -> int:
    """All clips, in shards after the last one that is there; returns how many there were.

    Whatever ends `clips`, an error or Ctrl-C too, those that came before are written.
    """
    numbers = [int(file.stem.removeprefix("shard-")) for file in folder.glob("shard-*.safetensors")]
    number, waiting, written = max(numbers, default=-1) + 1, [], 0
    try:
        for clip in clips:
            waiting.append(clip)
            if len(waiting) == per_shard:
                write_shard(folder, number, waiting)
                number, written, waiting = number + 1, written + len(waiting), []
    finally:
        if waiting:
            write_shard(folder, number, waiting)
    return written + len(waiting)
