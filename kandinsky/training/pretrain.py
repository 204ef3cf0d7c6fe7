"""Pretraining: v-prediction of noisy latents, given text.

    python -m kandinsky.training.pretrain config.yaml

The noise schedule is the sampler's (zero terminal SNR), the loss the mean squared error of the velocity (arXiv
2202.00512).
Legend: see `velocity`.
"""

import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.checkpoint.pending import place_of
from kandinsky.model.dit import DiT
from kandinsky.sampler import renoise
from kandinsky.training.initial import fresh, load_trainable
from kandinsky.training.levels import TIMESTEPS, Levels, velocity_target
from kandinsky.training.loop import Losses, train
from kandinsky.training.sampling import sample_from
from kandinsky.training.settings import PretrainSettings, settings_or_exit
from kandinsky.training.velocity import velocity


class Draws(NamedTuple):
    """Randomness of one step: timesteps `[clips]`, and noise shaped as the latents."""

    time: Tensor
    noise: Tensor


class Pretraining(nn.Module):
    """A DiT that learns to predict the velocity.

    Args:
        student: trained.
        levels: of the model set.
        settings: see `PretrainSettings`.
    """

    def __init__(self, student: DiT, levels: Levels, settings: PretrainSettings):
        super().__init__()
        self.student = student
        self.levels, self.settings = levels, settings
        self.frozen: tuple[nn.Module, ...] = ()

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Draws:
        """For a batch of latents of `shape`."""
        drawn = self.settings.levels
        device = generator.device
        time = (
            torch.randint(TIMESTEPS, shape[:1], generator=generator, device=device)
            if drawn is None
            else drawn.draw(shape[0], generator)
        )
        return Draws(time, torch.randn(shape, generator=generator, device=device))

    def forward(self, latents: Tensor, text: Tensor, draws: Draws | None) -> Losses | Tensor:
        """The loss of one step; without draws, samples: see `sample_from`."""
        if draws is None:
            return sample_from(self.student, self.levels, latents, text)
        alpha = self.levels.alpha(draws.time)
        noisy = renoise(latents, draws.noise, alpha)
        predicted = velocity(self.student, noisy, text, draws.time, checkpointing=self.settings.checkpointing)
        loss = F.mse_loss(predicted.float(), velocity_target(latents, draws.noise, alpha).float())
        return Losses(loss, {"loss": loss})


def main(arguments: list[str]) -> None:
    settings = settings_or_exit(PretrainSettings, arguments)
    student = fresh(settings.dit, seed=settings.seed) if settings.initial is None else load_trainable(settings.initial)
    train(Pretraining(student, Levels(place_of(settings.weights, "scheduler")), settings), settings)


if __name__ == "__main__":
    main(sys.argv[1:])
