"""The four-step renoising sampler: pure functions over a velocity callable.

Source: the published sampler over diffusers' `CogVideoXDDIMScheduler` (scaled-linear betas, zero terminal SNR after
arXiv 2305.08891, v-prediction after arXiv 2202.00512, trailing spacing). At each timestep the sample is noised to that
level and denoised in one step, so `predict_x0` and `renoise` are also what a distillation trains.

Randomness arrives as a CPU `torch.Generator`, so the same seed gives the same noise on every device.
Nothing here knows of text, frames or files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

Velocity = Callable[[Tensor, int], Tensor]
"""(latents [T, H, W, C] in bfloat16 precision, index of the timestep) -> velocity of the same shape."""
OnStep = Callable[[int, Tensor], Tensor | None]
"""(index of the step, latents after it) -> latents to go on with, or None for the same."""


class Known(Protocol):
    """What a sample is to hold, known before it is drawn; `kandinsky.known` makes such values.

    Frames that are known stay what they are, as in RePaint (arXiv 2201.09865): they are put in before each noising and
    after the last step. A run that begins at a later timestep begins with `latents`, as in SDEdit (arXiv 2108.01073).
    """

    @property
    def latents(self) -> Tensor:
        """`[T, H, W, C]`; where nothing is known, the first noised step begins with them if `first` is not 0."""
        ...

    @property
    def mask(self) -> Tensor:
        """Bool `[T, H, W]`: where the result is `latents`."""
        ...

    @property
    def first(self) -> int:
        """Index of the timestep that the run begins with."""
        ...

    @property
    def noised(self) -> str:
        """How much what is known is noised in each step, one of `NOISED`."""
        ...

    @property
    def toned(self) -> bool:
        """Whether the rest gets the tone of what is known: see `_Held.toned`."""
        ...


NOISED = ("own", "ahead", "last", "none")
"""Noise of what is known in a step: as the rest has; as the next step has, so that the rest sees it a step ahead of
itself; as the last step has; or none, for weights that were trained so."""

_SUPPORTED: Mapping[str, object] = {
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


@dataclass(frozen=True)
class Schedule:
    """Timesteps of a run, highest noise first, and the signal power `alphas_cumprod` (float64) at each.

    `config` is the file that it was made from, if it was made from one.
    """

    timesteps: tuple[int, ...]
    alphas_cumprod: tuple[float, ...]
    config: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, num_steps: int = 4) -> "Schedule":
        """Schedule of `num_steps` steps from a `scheduler_config.json`.

        Raises:
            ValueError: the configuration asks for something else than this sampler computes.
        """
        for key, expected in _SUPPORTED.items():
            if config.get(key, expected) != expected:
                raise ValueError(f"scheduler {key}={config[key]!r}: this sampler computes {expected!r} only")
        alphas = noise_levels(config)
        total = len(alphas)
        timesteps = tuple(round(total - i * total / num_steps) - 1 for i in range(num_steps))
        return cls(timesteps, tuple(alphas[t].item() for t in timesteps), dict(config))


def noise_levels(config: Mapping[str, Any]) -> Tensor:
    """`alphas_cumprod` of every training timestep, float64 `[num_train_timesteps]`."""
    start, end, steps = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    shift = config.get("snr_shift_scale", 1.0)
    alphas = alphas / (shift + (1 - shift) * alphas)
    return _zero_terminal_snr(alphas) if config.get("rescale_betas_zero_snr", False) else alphas


def _zero_terminal_snr(alphas: Tensor) -> Tensor:
    """Shift and scale sqrt(alphas) so that the last is 0 and the first unchanged (arXiv 2305.08891, algorithm 1)."""
    root = alphas.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * (first / (first - last))) ** 2


def renoise(x0: Tensor, noise: Tensor, alpha: float | Tensor) -> Tensor:
    """Noise `x0` to the level `alpha` (one, or a tensor that broadcasts): sqrt(alpha) x0 + sqrt(1 - alpha) noise."""
    signal, rest = _roots(alpha)
    return signal * x0 + rest * noise


def predict_x0(x: Tensor, velocity: Tensor, alpha: float | Tensor) -> Tensor:
    """Clean sample from a noisy one and its velocity: sqrt(alpha) x - sqrt(1 - alpha) velocity."""
    signal, rest = _roots(alpha)
    return signal * x - rest * velocity


def _roots(alpha: float | Tensor) -> tuple[float, float] | tuple[Tensor, Tensor]:
    """sqrt(alpha), sqrt(1 - alpha)."""
    if isinstance(alpha, Tensor):
        return alpha.sqrt(), (1 - alpha).sqrt()
    return math.sqrt(alpha), math.sqrt(1 - alpha)


def draw_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal noise on the CPU, drawn in float32 and rounded to bfloat16, as the published code draws it."""
    return torch.randn(shape, generator=generator, dtype=torch.float32).bfloat16()


def sample(
    velocity: Velocity,
    shape: tuple[int, ...],
    schedule: Schedule,
    *,
    generator: torch.Generator,
    device: torch.device,
    on_step: OnStep | None = None,
    known: Known | None = None,
) -> Tensor:
    """Draw one sample.

    Args:
        velocity: the model, called once per timestep with the latents and the timestep's index.
        shape: of the latents, `[T, H, W, C]`.
        generator: on the CPU; advanced by 1 + len(timesteps) draws, however many steps are run.
        device: where the latents live.
        on_step: called after each step with its index and the latents; what it returns takes their place.
        known: what the result is to hold, or to begin with.

    Returns:
        Latents `[T, H, W, C]`, float64 (float32 on devices without float64).
    """
    dtype = torch.float32 if device.type == "mps" else torch.float64
    draw_noise(shape, generator)  # the published code's first sample: multiplied by zero, but it advances the generator
    draws = (draw_noise(shape, generator) for _ in schedule.timesteps)
    drawn = next(draws)
    held = None if known is None else _Held(known, device=device, dtype=dtype)
    latents = torch.zeros(shape, dtype=dtype, device=device)
    if held is not None and held.known.first:
        latents = held.latents
    for index, alpha in enumerate(schedule.alphas_cumprod):
        if held is not None and index < held.known.first:
            drawn = next(draws, drawn)
            continue
        noise = drawn.to(device).to(dtype)
        latents = renoise(latents, noise, alpha)
        if held is not None:
            latents = held.noised_into(latents, noise, schedule.alphas_cumprod[index:])
        moving = velocity(latents, index)
        drawn = next(draws, drawn)  # the next step's, while the device is at this one, which is only queued
        latents = predict_x0(latents, moving.to(dtype), alpha)
        latents = latents if held is None else held.into(held.toned(latents))
        replaced = on_step(index, latents) if on_step is not None else None
        latents = latents if replaced is None else replaced
    return latents if held is None else held.into(latents)


class _Held:
    """What is known, on a device."""

    def __init__(self, known: Known, *, device: torch.device, dtype: torch.dtype):
        self.known = known
        self.latents = known.latents.to(device, dtype)
        self._mask = known.mask.to(device)[..., None]
        counts = self._mask.sum((1, 2))[:, 0]
        self._frames = counts.nonzero()[:, 0] if known.toned else counts.new_zeros(0)
        self._middle = (counts[self._frames] - 1) // 2
        self._between = _between(self._frames.tolist(), len(counts)).to(device, dtype)

    def into(self, latents: Tensor) -> Tensor:
        """Latents with the known part in its place."""
        return torch.where(self._mask, self.latents, latents)

    def toned(self, predicted: Tensor) -> Tensor:
        """Predicted latents, shifted by how far they are off where they are known.

        In each frame that is known somewhere that is the median over its known places, for each channel; other frames
        take what lies between their neighbours of the kind. A median does not see what moved.
        """
        if not len(self._frames):
            return predicted
        off = torch.where(self._mask, self.latents - predicted, math.inf)[self._frames].flatten(1, 2)
        ordered = off.sort(dim=1).values  # [frames, places, C], known ones first
        median = ordered.take_along_dim(self._middle[:, None, None], dim=1)[:, 0]
        return predicted + (self._between @ median)[:, None, None]

    def noised_into(self, latents: Tensor, noise: Tensor, alphas: Sequence[float]) -> Tensor:
        """Noised latents with the known part in its place, noised too; `alphas` are those from this step on."""
        ahead = alphas[min(1, len(alphas) - 1)]
        alpha = {"own": alphas[0], "ahead": ahead, "last": alphas[-1], "none": 1.0}[self.known.noised]
        return torch.where(self._mask, renoise(self.latents, noise, alpha), latents)


def _between(frames: Sequence[int], count: int) -> Tensor:
    """Weights `[count, frames]` of values at some frames for every frame: linear between them, the nearest's beyond."""
    weights = torch.zeros(count, len(frames))
    for frame in range(count if frames else 0):
        before = max((i for i, other in enumerate(frames) if other <= frame), default=0)
        after = min((i for i, other in enumerate(frames) if other >= frame), default=len(frames) - 1)
        way = frames[after] - frames[before]
        share = (frame - frames[before]) / way if way > 0 and frames[before] <= frame <= frames[after] else 0.0
        weights[frame, before] += 1 - share
        weights[frame, after] += share
    return weights
