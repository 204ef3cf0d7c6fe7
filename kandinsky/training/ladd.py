"""LADD: latent adversarial diffusion distillation of a teacher into a student of four steps.

    python -m kandinsky.training.ladd config.yaml

Source: arXiv 2403.12015, and the model's authors' drawing of it. Real latents are noised to one of the student's
timesteps and denoised by the student in one step. That prediction and the real latents are both noised again, to a
level of a logit-normal, and run through the frozen teacher; heads after its global blocks tell them apart. Student and
heads train together, in one backward pass: the heads see the fake features detached, and the student sees the heads
detached.

No distillation loss, no guidance. `latents` may be real ones or the teacher's own (`kandinsky.training.teacher_data`).
With `known_share` the student is given a part of some clips without noise, and the heads see it in its clips too:
what does not go with it is told apart (see `known_frames`).
Legend: see `velocity`.
"""

import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kandinsky.checkpoint.pending import place_of
from kandinsky.model.dit import DiT
from kandinsky.sampler import predict_x0, renoise
from kandinsky.training.discriminator import Features, Heads
from kandinsky.training.initial import load_trainable
from kandinsky.training.known_frames import draw_known, put_in
from kandinsky.training.levels import Levels
from kandinsky.training.loop import Losses, train
from kandinsky.training.losses import approximate_r1, discriminator_loss, generator_loss, mean_score
from kandinsky.training.sampling import sample_from
from kandinsky.training.settings import AdversarialSettings, LaddSettings, settings_or_exit
from kandinsky.training.velocity import velocity


class Draws(NamedTuple):
    """Randomness of one step.

    Args:
        steps: index of the student's timestep, `[clips]`.
        time: the discriminator's level, `[clips]`.
        student_noise, fake_noise, real_noise, nudge: standard normal, shaped as the latents.
        known: what the student is given, bool `[clips, T, H, W]`.
    """

    steps: Tensor
    time: Tensor
    student_noise: Tensor
    fake_noise: Tensor
    real_noise: Tensor
    nudge: Tensor
    known: Tensor


class Ladd(nn.Module):
    """Student and heads; the teacher is held beside them, not as a part.

    Args:
        student: trained; it begins as the teacher's copy, or from weights of its own.
        teacher: frozen.
        levels: of the model set.
        settings: see `AdversarialSettings`.
    """

    def __init__(self, student: DiT, teacher: DiT, levels: Levels, settings: AdversarialSettings):
        super().__init__()
        blocks = teacher.config.num_blocks
        if settings.heads_every > blocks:
            raise ValueError(f"heads_every={settings.heads_every}: allowed is 1 to {blocks}, the global blocks")
        self.student: nn.Module = student
        self._dit = (student,)  # a part of `student` or all of it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)  # the same heads on every process
            self.heads = Heads(teacher.config, every=settings.heads_every)
        self.levels, self.settings = levels, settings
        self.frozen: tuple[nn.Module, ...] = (teacher.requires_grad_(False),)
        self.features = Features(teacher, every=settings.heads_every)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Draws:
        """For a batch of latents of `shape`."""
        index = self.settings.student_levels.draw(shape[0], generator)
        time = self.settings.discriminator_levels.draw(shape[0], generator)
        student, fake, real, nudge = torch.randn((4, *shape), generator=generator, device=generator.device).unbind()
        known = draw_known(shape, self.settings.known_share, generator)
        return Draws(index, time, student, fake, real, nudge, known)

    def forward(self, latents: Tensor, text: Tensor, draws: Draws | None) -> Losses | Tensor:
        """Losses of one step; without draws, samples made from `latents`, one noise for each timestep stacked in
        front."""
        if draws is None:
            return self.sample(latents, text)
        noisy = renoise(latents, draws.student_noise, self._alpha(draws.steps))
        made = self.denoise(put_in(draws.known, latents, noisy), text, draws.steps)
        fake = put_in(draws.known, latents, made)
        level = self.levels.alpha(draws.time)
        noisy_fake, noisy_real = renoise(fake, draws.fake_noise, level), renoise(latents, draws.real_noise, level)
        again = {"checkpointing": self.settings.checkpointing}
        seen = self.features(noisy_fake, text, draws.time, **again)
        for_student = self.heads(*seen, frozen=True, **again)
        with torch.no_grad():
            real_seen = self.features(noisy_real, text, draws.time)
        fake_scores = self.heads([tokens.detach() for tokens in seen[0]], *seen[1:], **again)
        real_scores = self.heads(*real_seen, **again)
        adversarial, hinge = generator_loss(for_student), discriminator_loss(real_scores, fake_scores)
        penalty = self._penalty(noisy_real, text, draws, real_scores)
        logs = {"student": adversarial, "heads": hinge, "penalty": penalty}
        for number, (real, forged) in enumerate(zip(real_scores, fake_scores, strict=True)):
            logs |= {f"real/{number}": mean_score([real]), f"fake/{number}": mean_score([forged])}
        return Losses(adversarial + hinge + self.settings.r1_weight * penalty, logs)

    def denoise(self, noisy: Tensor, text: Tensor, index: Tensor) -> Tensor:
        """Clean latents that the student predicts at its timesteps `index`."""
        steps, checkpointing = self.levels.steps, self.settings.checkpointing
        predicted = velocity(self._dit[0], noisy, text, steps[index], checkpointing=checkpointing)
        return predict_x0(noisy, predicted, self._alpha(index))

    def sample(self, noises: Tensor, text: Tensor) -> Tensor:
        """Four steps from `noises [steps, clips, T, H, W, C]`, as the pipeline makes them."""
        return sample_from(self._dit[0], self.levels, noises, text)

    def _alpha(self, index: Tensor) -> Tensor:
        return self.levels.alpha(self.levels.steps[index])

    def _penalty(self, noisy_real: Tensor, text: Tensor, draws: Draws, scores: list[Tensor]) -> Tensor:
        """Approximate R1; 0 where it is not asked for."""
        if not self.settings.r1_weight:
            return scores[0].new_zeros(())
        distance = self.settings.r1_distance
        with torch.no_grad():
            moved = self.features(noisy_real + distance * draws.nudge, text, draws.time)
        return approximate_r1(scores, self.heads(*moved, checkpointing=self.settings.checkpointing), distance)


def main(arguments: list[str]) -> None:
    settings = settings_or_exit(LaddSettings, arguments)
    levels = Levels(place_of(settings.weights, "scheduler"), num_steps=len(settings.student_levels.weights))
    student, teacher = (load_trainable(path) for path in (settings.initial or settings.teacher, settings.teacher))
    train(Ladd(student, teacher, levels, settings), settings)


if __name__ == "__main__":
    main(sys.argv[1:])
