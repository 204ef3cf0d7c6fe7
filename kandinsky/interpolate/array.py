"""All frames of a video at once, as an array, with frames between them."""

from collections.abc import Iterator

import numpy as np
import torch

from kandinsky.config import INTERPOLATORS
from kandinsky.interpolate.interpolator import load_interpolator
from kandinsky.interpolate.minterpolate import minterpolated
from kandinsky.interpolate.stream import check_factor, interpolated


def frames(
    frames: np.ndarray,
    factor: int = 3,
    *,
    interpolate_with: str = INTERPOLATORS[0],
    device: str | torch.device | None = None,
) -> np.ndarray:
    """A video with `factor` times as many frames a second, of the same length.

    Args:
        frames: uint8 `[n, height, width, 3]`.
        factor: 2, 3 or 4.
        interpolate_with: "ffmpeg" for ffmpeg's motion-compensated filter, or "network" for the library's own network.
        device: where the network runs; None is CUDA if there is a GPU, else the CPU.

    Returns:
        uint8 `[(n - 1) factor + 1, height, width, 3]`; every `factor`-th frame is one that was given, as it was.

    Raises:
        ValueError: these are no frames, or such a factor or way is not allowed.
        VideoError: ffmpeg failed.
    """
    check_factor(factor)
    if interpolate_with not in INTERPOLATORS:
        raise ValueError(f"interpolate_with={interpolate_with!r}: allowed are {', '.join(map(repr, INTERPOLATORS))}")
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        found = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ValueError(f"frames are {found}; allowed: a uint8 array [n, height, width, 3]")
    if frames.size == 0:
        raise ValueError(f"frames have shape {list(frames.shape)}; allowed is one frame or more")
    chunks = (frames[start : start + 8] for start in range(0, len(frames), 8))
    made = minterpolated(chunks, factor) if interpolate_with == "ffmpeg" else _by_network(chunks, factor, device)
    return np.concatenate(list(made))


def _by_network(chunks: Iterator[np.ndarray], factor: int, device: str | torch.device | None) -> Iterator[np.ndarray]:
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    moved = (torch.from_numpy(chunk.copy()).to(place) for chunk in chunks)
    return (chunk.cpu().numpy() for chunk in interpolated(moved, factor, load_interpolator(place)))
