"""Latents to frames on the host, with frames between them if they are wanted."""

from collections.abc import Generator

import numpy as np
from torch import Tensor

from kandinsky.interpolate.interpolator import load_interpolator
from kandinsky.interpolate.minterpolate import minterpolated
from kandinsky.interpolate.stream import interpolated
from kandinsky.output.options import Output
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.stream import to_host


def smoothed(
    vae: VideoAutoencoder, latents: Tensor, output: Output | None, *, memory_saving: bool | None
) -> Generator[np.ndarray]:
    """Decode, and make frames in between while the next chunk is decoded.

    Args:
        latents: `[T, H, W, C]` as sampled.
        output: tells what is wanted; None is the frames as they are.
        memory_saving: as for `VideoAutoencoder.decode`.

    Yields:
        uint8 `[n, height, width, 3]`, each chunk valid until the next. With several ranks all must call this; the first
        one gets the frames, the others nothing.
    """
    if output is None or output.interpolate is None:
        yield from (chunk.numpy() for chunk in vae.frames(latents, memory_saving=memory_saving))
        return
    if output.interpolate_with == "ffmpeg":  # of several ranks the first one gets the frames, and fills all gaps
        frames = (chunk.numpy() for chunk in vae.frames(latents, memory_saving=memory_saving))
        yield from minterpolated(frames, output.interpolate)
        return
    rows = vae.rows(latents)
    if rows is None:
        return
    between = load_interpolator(vae.device)
    chunks = vae.decode(latents, memory_saving=memory_saving, everywhere=True)
    made = interpolated(chunks, output.interpolate, between, stream=between.stream, share=rows)
    yield from (chunk.numpy() for chunk in to_host(made, between.stream))
