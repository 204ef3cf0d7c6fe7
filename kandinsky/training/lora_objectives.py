"""Two objectives that train low-rank weights of a DiT of few steps, and nothing else.

* `LoraLadd`: the adversarial distillation that made the DiT (`ladd`), with the frozen base as the teacher whose
  features are scored. The student predicts clean latents of the clips from each of its noise levels in one step, and
  must not be told from them. Sharpness that the distillation gave is asked for again.
* `LoraVelocity`: the squared error of the velocity (arXiv 2202.00512) at the student's timesteps, which is what an
  ordinary fine-tune does. Its best answer is a mean over all that may be, so that details blur. For comparison.

Both may punish changes of what is to stay; see `keep`. Legend: see `velocity`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.sampler import renoise
from kandinsky.training.keep import Kept
from kandinsky.training.ladd import Draws, Ladd
from kandinsky.training.levels import Levels, velocity_target
from kandinsky.training.loop import Losses
from kandinsky.training.lora_model import Adapted, Adapters
from kandinsky.training.lora_settings import LoraSettings
from kandinsky.training.sampling import sample_from
from kandinsky.training.velocity import velocity


class KeptDraws(NamedTuple):
    """Randomness of the term that keeps what is to stay: numbers of clips, indices of timesteps, noise."""

    numbers: Tensor
    steps: Tensor
    noise: Tensor


class LaddDraws(NamedTuple):
    """As `ladd.Draws` and `KeptDraws`."""

    steps: Tensor
    time: Tensor
    student_noise: Tensor
    fake_noise: Tensor
    real_noise: Tensor
    nudge: Tensor
    kept_numbers: Tensor
    kept_steps: Tensor
    kept_noise: Tensor


class VelocityDraws(NamedTuple):
    """Indices of the student's timesteps `[clips]`, noise shaped as the latents, and as `KeptDraws`."""

    steps: Tensor
    noise: Tensor
    kept_numbers: Tensor
    kept_steps: Tensor
    kept_noise: Tensor


class Keeping:
    """How much the low-rank weights change what is to stay.

    Args:
        model: both DiTs.
        levels: of the model set.
        kept: clips of the base; None punishes nothing.
        settings: see `LoraSettings`.
    """

    def __init__(self, model: Adapted, levels: Levels, kept: Kept | None, settings: LoraSettings):
        self.model, self.levels, self.kept, self.settings = model, levels, kept, settings

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> KeptDraws:
        """For a batch of latents of `shape`; nothing is drawn where nothing is kept."""
        if self.kept is None:
            none = torch.zeros(shape[0], dtype=torch.long, device=generator.device)
            return KeptDraws(none, none, none)
        numbers = self.kept.draw(shape, generator)
        steps = self.settings.student_levels.draw(shape[0], generator)
        return KeptDraws(numbers, steps, torch.randn(shape, generator=generator, device=generator.device))

    def add(self, losses: Losses, draws: KeptDraws) -> Losses:
        """The losses with the squared change of the velocity, times its weight."""
        if self.kept is None:
            return losses
        latents, text = self.kept.take(draws.noise.shape[1:], draws.numbers)
        time = self.levels.steps[draws.steps]
        noisy = renoise(latents, draws.noise, self.levels.alpha(time))
        with torch.no_grad():
            before = velocity(self.model.base, noisy, text, time)
        now = velocity(self.model.dit, noisy, text, time, checkpointing=self.settings.checkpointing)
        change = F.mse_loss(now.float(), before.float())
        return Losses(losses.total + self.settings.keep_weight * change, losses.logs | {"keep": change})


class LoraLadd(Ladd):
    """LADD of the low-rank weights; `student` is these weights alone.

    Args:
        model: both DiTs, which are held beside what is trained.
        levels: of the model set.
        settings: see `LoraSettings`.
        kept: what is to stay, if anything.
    """

    def __init__(self, model: Adapted, levels: Levels, settings: LoraSettings, kept: Kept | None = None):
        super().__init__(model.dit, model.base, levels, settings)
        self.student = Adapters(model.dit)
        self.frozen = ()  # the base is where it belongs, in the precision that was asked for
        self.keeping = Keeping(model, levels, kept, settings)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> LaddDraws:  # type: ignore[override]
        """For a batch of latents of `shape`."""
        return LaddDraws(*super().draw(shape, generator), *self.keeping.draw(shape, generator))

    def forward(self, latents: Tensor, text: Tensor, draws: LaddDraws | None) -> Losses | Tensor:  # type: ignore[override]
        """As `Ladd.forward`."""
        if draws is None:
            return self.sample(latents, text)
        losses = super().forward(latents, text, Draws(*draws[:6]))
        assert isinstance(losses, Losses)
        return self.keeping.add(losses, KeptDraws(*draws[6:]))


class LoraVelocity(nn.Module):
    """v-prediction at the student's timesteps; arguments are those of `LoraLadd`."""

    def __init__(self, model: Adapted, levels: Levels, settings: LoraSettings, kept: Kept | None = None):
        super().__init__()
        self.student = Adapters(model.dit)
        self.levels, self.settings = levels, settings
        self.frozen: tuple[nn.Module, ...] = ()
        self.keeping = Keeping(model, levels, kept, settings)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> VelocityDraws:
        """For a batch of latents of `shape`."""
        steps = self.settings.student_levels.draw(shape[0], generator)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return VelocityDraws(steps, noise, *self.keeping.draw(shape, generator))

    def forward(self, latents: Tensor, text: Tensor, draws: VelocityDraws | None) -> Losses | Tensor:
        """The loss of one step; without draws, samples: see `sample_from`."""
        dit = self.keeping.model.dit
        if draws is None:
            return sample_from(dit, self.levels, latents, text)
        time = self.levels.steps[draws.steps]
        alpha = self.levels.alpha(time)
        noisy = renoise(latents, draws.noise, alpha)
        predicted = velocity(dit, noisy, text, time, checkpointing=self.settings.checkpointing)
        loss = F.mse_loss(predicted.float(), velocity_target(latents, draws.noise, alpha).float())
        return self.keeping.add(Losses(loss, {"loss": loss}), KeptDraws(*draws[2:]))
