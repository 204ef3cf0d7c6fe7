"""A spectrogram picture to a waveform: mel amplitudes, least squares to linear ones, Griffin-Lim, level.

What the published code does with torchaudio and pydub (after riffusion), in PyTorch alone: torchaudio has no build
beside a CPU's PyTorch. The algorithm: Perraudin, Balazs and Sondergaard, "A fast Griffin-Lim algorithm" (2013).

Shapes: M = 512 mel bands, L = 8821 linear ones, C columns of the picture, one each 10 ms.
A window is a quarter of what is transformed, the rest is zeros: windows alone are kept, and only bands that are heard.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 44_100
N_FFT, WINDOW, HOP = 17_640, 4_410, 441
"""Samples: of a transform, of its Hann window, and from one column to the next."""
BANDS, LOWEST, HIGHEST = 512, 0.0, 10_000.0
"""Mel bands, and the hertz that they begin and end at."""
HEARD = round(HIGHEST * N_FFT / SAMPLE_RATE)
"""Linear bands below the highest mel band's end, B = 4000; the others are silent."""
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


@cache
def _products() -> Tensor:
    """Of each band with each other, float64 `[M, M]`: the same for every sound, and most of the work."""
    filters = mel_filters()
    return filters @ filters.T


def mel_amplitudes(picture: Tensor) -> Tensor:
    """Mel amplitudes, float32 `[M, C]`, of a picture, uint8 `[M, C, 3]`: low bands stand at its bottom."""
    darkness = (255 - picture[..., 0].flip(0).float()) / 255
    return darkness**EXPONENT * LOUDEST


def linear_amplitudes(mel: Tensor) -> Tensor:
    """The smallest linear amplitudes `[L, C]` that have these mel amplitudes `[M, C]`, none below 0; float32.

    There are more linear bands than mel bands, so that many amplitudes fit: what is taken is the least squares' one,
    through the products of the bands with each other, in float64.
    """
    weights = torch.linalg.solve(_products(), mel.double().cpu())  # [M, C]
    return (mel_filters().T.float().to(mel.device) @ weights.float().to(mel.device)).relu()


def griffin_lim(amplitudes: Tensor, phases: Tensor) -> Tensor:
    """A waveform `[(C - 1) * 441]` whose transform has about these amplitudes `[B, C]`.

    Args:
        amplitudes: float32, of the lowest B linear bands; the others have none.
        phases: complex `[B, C]` of any length, where the search begins, for windows that each begin at 0.
    """
    columns = amplitudes.shape[1]
    window = torch.hann_window(WINDOW, device=amplitudes.device)
    envelope = _overlapped(window.square().repeat(columns, 1))
    # As torchaudio takes it: what is called its momentum is m / (1 + m) in the paper's formula.
    momentum = MOMENTUM / (1 + MOMENTUM)
    wanted, angles = amplitudes.T.contiguous(), phases.T.contiguous()  # [C, B]
    before = torch.zeros_like(angles)

    def signal() -> Tensor:
        pieces = torch.fft.irfft(wanted * angles, n=N_FFT)[:, :WINDOW] * window
        return _overlapped(pieces) / envelope

    for _ in range(ITERATIONS):
        padded = F.pad(signal()[None], (WINDOW // 2, WINDOW // 2), mode="reflect")[0]
        rebuilt = torch.fft.rfft(padded.unfold(0, WINDOW, HOP) * window, n=N_FFT)[:, : wanted.shape[1]]
        angles = rebuilt - momentum * before
        angles /= angles.abs() + 1e-16
        before = rebuilt
    return signal()


def _overlapped(pieces: Tensor) -> Tensor:
    """The sum `[(C - 1) * 441]` of windows `[C, 4410]` that begin 441 samples apart, from the first's middle on."""
    columns, shifts = len(pieces), WINDOW // HOP
    total = pieces.new_zeros(columns + shifts - 1, HOP)
    for shift, part in enumerate(pieces.unflatten(1, (shifts, HOP)).unbind(1)):
        total[shift : shift + columns] += part
    return total.flatten()[WINDOW // 2 :][: (columns - 1) * HOP]


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
    linear = linear_amplitudes(mel_amplitudes(picture).to(device))[:HEARD]
    phases = torch.rand(*linear.shape, dtype=torch.complex64, generator=generator).to(device)
    return levelled(griffin_lim(linear, phases)).cpu()
