"""Noise levels that training draws, on the schedule that the sampler runs.

`sampler.renoise` and `sampler.predict_x0` do the arithmetic; here are the alphas of every training timestep as a
table, and the distributions from which a batch's timesteps come.

Legend: time: [clips] integer timesteps     latents: [clips, T, H, W, C]
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kandinsky.sampler import Schedule, noise_levels
from kandinsky.user_files.lines import read_json

TIMESTEPS = 1000


@dataclass(frozen=True, kw_only=True)
class LogitNormal:
    """Timesteps 999 sigmoid(normal(mean, std)): a larger mean is more noise. `std` 0 is one level.

    Source: arXiv 2403.03206, section 3.1; for the discriminator arXiv 2403.12015, section 3.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if self.std < 0:
            raise ValueError(f"std={self.std}: allowed is 0 and more")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, generator=generator, device=generator.device)
        return ((TIMESTEPS - 1) * torch.sigmoid(self.mean + self.std * normal)).round().long()


@dataclass(frozen=True, kw_only=True)
class StepWeights:
    """How often each of the student's timesteps is drawn, highest noise first; normalised to sum 1."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError(f"weights={self.weights}: allowed are numbers from 0, not all of them 0")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices of timesteps."""
        weights = torch.tensor(self.weights, device=generator.device)
        return torch.multinomial(weights, count, replacement=True, generator=generator)


class Levels(nn.Module):
    """The schedule of a model set, as buffers that no checkpoint holds.

    Args:
        scheduler: folder of `scheduler_config.json`.
        num_steps: of the student.
    """

    alphas: Tensor
    steps: Tensor

    def __init__(self, scheduler: Path, *, num_steps: int = 4):
        super().__init__()
        config = read_json(scheduler / "scheduler_config.json")
        self.schedule = Schedule.from_config(config, num_steps=num_steps)
        self.register_buffer("alphas", noise_levels(config).float(), persistent=False)
        self.register_buffer("steps", torch.tensor(self.schedule.timesteps), persistent=False)

    def alpha(self, time: Tensor) -> Tensor:
        """Signal power at each clip's timestep, float32 `[clips, 1, 1, 1, 1]`."""
        return self.alphas[time][:, None, None, None, None]


def velocity_target(latents: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """sqrt(alpha) noise - sqrt(1 - alpha) latents (v-prediction, arXiv 2202.00512)."""
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
