"""Writing shards of cached latents and text embeddings; `data` reads them and says what is in one.

A shard appears complete or not at all.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

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
    partial = target.with_suffix(".partial")
    save_file(tensors, partial, metadata={"items": items})
    os.replace(partial, target)
    return target


def write_shards(clips: Iterable[Encoded], folder: Path, *, per_shard: int = PER_SHARD) -> int:
    """All clips, from the first free shard number on; returns how many there were."""
    number, waiting, written = len(list(folder.glob("shard-*.safetensors"))), [], 0
    for clip in clips:
        waiting.append(clip)
        if len(waiting) == per_shard:
            write_shard(folder, number, waiting)
            number, written, waiting = number + 1, written + len(waiting), []
    if waiting:
        write_shard(folder, number, waiting)
    return written + len(waiting)
