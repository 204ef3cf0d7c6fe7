"""A spectrogram picture to a waveform: mel amplitudes, least squares to linear ones, Griffin-Lim, level.

What the published code does with torchaudio and pydub (after riffusion), in PyTorch alone: torchaudio has no build
beside a CPU's PyTorch. Source of the algorithm: Perraudin, Balazs and Sondergaard, "A fast Griffin-Lim algorithm", 2013.

Shapes: M = 512 mel bands, L = 8821 linear ones, C columns of the picture, one each 10 ms.
"""

import math
from functools import cache

import torch
from torch import Tensor

SAMPLE_RATE = 44_100
N_FFT, WINDOW, HOP = 17_640, 4_410, 441
"""Samples: of a transform, of its Hann window, and from one column to the next."""
BANDS, LOWEST, HIGHEST = 512, 0.0, 10_000.0
"""Mel bands, and the hertz that they begin and end at."""
LOUDEST = 30e6
"""Mel amplitude of a black pixel."""
EXPONENT = 4
"""A pixel's darkness to this power is its share of `LOUDEST`."""
ITERATIONS, MOMENTUM = 32, 0.99
LEVEL = -30.0
"""Decibels of the result, of its root mean square against full scale."""


@cache
def mel_filters() -> Tensor:
    """Triangles of height 1 on the HTK mel scale, float64 `[M, L]`; not to be written to."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    edges = torch.linspace(mel(LOWEST), mel(HIGHEST), BANDS + 2, dtype=torch.float64)
    edges = 700 * (10 ** (edges / 2595) - 1)  # [M + 2], hertz
    hertz = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)  # [L]
    widths = edges.diff()[:, None]  # [M + 1, 1]
    rising = (hertz - edges[:-2, None]) / widths[:-1]
    falling = (edges[2:, None] - hertz) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)


def mel_amplitudes(picture: Tensor) -> Tensor:
    """Mel amplitudes, float32 `[M, C]`, of a picture, uint8 `[M, C, 3]`: low bands stand at its bottom."""
    darkness = (255 - picture[..., 0].flip(0).float()) / 255
    return darkness**EXPONENT * LOUDEST


def linear_amplitudes(mel: Tensor) -> Tensor:
    """The smallest linear amplitudes `[L, C]` that have these mel amplitudes `[M, C]`, none below 0; float32.

    Of all solutions, of which there are many, the one of least squares. In float64, and through the bands' products with
    each other, of which only neighbours overlap: it is the same solution and takes a hundredth of the time.
    """
    filters = mel_filters()
    weights = torch.linalg.solve(filters @ filters.T, mel.double().cpu())  # [M, C]
    return (filters.T.float().to(mel.device) @ weights.float().to(mel.device)).relu()


def griffin_lim(amplitudes: Tensor, phases: Tensor) -> Tensor:
    """A waveform `[(C - 1) * 441]` whose transform has about these amplitudes `[L, C]`.

    Args:
        amplitudes: float32.
        phases: complex `[L, C]`, where the search begins.
    """
    window = torch.hann_window(WINDOW, device=amplitudes.device)
    settings = {"n_fft": N_FFT, "hop_length": HOP, "win_length": WINDOW, "window": window}
    # As torchaudio takes it: what is called its momentum is m / (1 + m) in the paper's formula.
    momentum = MOMENTUM / (1 + MOMENTUM)
    angles, before = phases, torch.zeros_like(phases)
    for _ in range(ITERATIONS):
        waveform = torch.istft(amplitudes * angles, **settings)
        rebuilt = torch.stft(waveform, **settings, center=True, pad_mode="reflect", return_complex=True)
        angles = rebuilt - momentum * before
        angles /= angles.abs() + 1e-16
        before = rebuilt
    return torch.istft(amplitudes * angles, **settings)


def levelled(waveform: Tensor) -> Tensor:
    """The waveform at `LEVEL`, within -1 and 1; silence stays silence."""
    loudness = waveform.square().mean().sqrt()
    if not loudness:
        return waveform
    return (waveform * (10 ** (LEVEL / 20) / loudness)).clamp(-1, 1)


def waveform_of(picture: Tensor, generator: torch.Generator, *, device: torch.device) -> Tensor:
    """The sound of a spectrogram picture: float32 `[(C - 1) * 441]` at 44,100 Hz, on the CPU.

    Args:
        picture: uint8 `[M, C, 3]`.
        generator: on the CPU, of the phases that the search begins with.
        device: that computes.
    """
    linear = linear_amplitudes(mel_amplitudes(picture).to(device))
    phases = torch.rand(*linear.shape, dtype=torch.complex64, generator=generator).to(device)
    return levelled(griffin_lim(linear, phases)).cpu()
