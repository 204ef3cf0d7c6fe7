"""What low-rank training is not to change: videos of some captions, as the base makes them.

Trained on clips of one thing only, a model learns that everything is that thing. So at each step the velocity is also
asked for at latents that the base made for other captions, and its change is punished. Source: prior preservation
(arXiv 2208.12242, section 4.2), with the base's own output at each noise level as the target, as in distillation.

Legend: see `velocity`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.model.dit import DiT
from kandinsky.sampler import draw_noise
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import sample_from
from kandinsky.user_files.lines import read_lines

BATCH = 16
"""Small clips that are made at once; of larger ones fewer."""
AT_ONCE = 200_000
"""Latent values, about, that are made at once."""


@dataclass(frozen=True)
class Kept:
    """Clips that the base made.

    Args:
        latents: for each shape (T, H, W, C) of the data, `[n, T, H, W, C]`.
        text: of the same clips, `[n, text_tokens, in_text_dim]`.
    """

    latents: Mapping[tuple[int, ...], Tensor]
    text: Mapping[tuple[int, ...], Tensor]

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Numbers of clips for a batch of latents of `shape` `(clips, T, H, W, C)`."""
        count = len(self.latents[shape[1:]])
        return torch.randint(count, shape[:1], generator=generator, device=generator.device)

    def take(self, shape: torch.Size, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and text of clips of `shape` (T, H, W, C)."""
        return self.latents[tuple(shape)][numbers], self.text[tuple(shape)][numbers]


def read_kept_captions(path: Path) -> list[str]:
    """A caption in each line that is not blank.

    Raises:
        ValueError: there is none, or the file is not UTF-8.
        OSError: it cannot be read.
    """
    captions = [line.strip() for line in read_lines(path, name=f"keep={str(path)!r}") if line.strip()]
    if not captions:
        raise ValueError(f"keep={str(path)!r}: has no caption; allowed is a text file with one in each line")
    return captions


@torch.no_grad()
def make_kept(
    base: DiT, levels: Levels, text: Tensor, shapes: Sequence[tuple[int, ...]], *, seed: int, device: torch.device
) -> Kept:
    """Clips of the base in its few steps, on the device.

    Args:
        text: `[captions, text_tokens, in_text_dim]`.
        shapes: (T, H, W, C) of the data's latents. Each caption is made in one of them, and where there are more shapes
            than captions some captions in several.
    """
    levels = levels.to(device)
    places: dict[tuple[int, ...], list[int]] = {shape: [] for shape in shapes}
    for index in range(max(len(text), len(shapes))):
        places[shapes[index % len(shapes)]].append(index % len(text))
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for shape, indices in places.items():
        count = max(1, min(BATCH, AT_ONCE // torch.Size(shape).numel()))
        parts = [indices[start : start + count] for start in range(0, len(indices), count)]
        clips = []
        for part in parts:
            noises = [draw_noise((len(part), *shape), generator).float() for _ in levels.steps]
            clips.append(sample_from(base, levels, torch.stack(noises).to(device), text[part].to(device)))
        made[shape] = torch.cat(clips).float()
    return Kept(made, {shape: text[indices].float().to(device) for shape, indices in places.items()})
