"""Latents to a stream of uint8 frames, and the frames to the host while the next ones are decoded.

Chunks as published: 3, 2, 2, ... latent frames (an odd one joins the first chunk), so 9, 8, 8, ... frames. Memory does
not grow with the length of the video.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.rows import WHOLE, Rows

LATENT_FRAMES_PER_CHUNK = 2


def chunk_bounds(latent_frames: int) -> list[tuple[int, int]]:
    """(start, stop) of each chunk of latent frames: an odd frame joins the first chunk."""
    first = min(latent_frames, LATENT_FRAMES_PER_CHUNK + latent_frames % LATENT_FRAMES_PER_CHUNK)
    starts = range(first, latent_frames, LATENT_FRAMES_PER_CHUNK)
    return [(0, first), *((start, start + LATENT_FRAMES_PER_CHUNK) for start in starts)]


def to_uint8(x: Tensor) -> Tensor:
    """Decoder output in [-1, 1] to 0..255, in float32, cut and not rounded, as published."""
    return ((x.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)


class Finite:
    """Whether all that was seen is finite, found out on the device without waiting for it."""

    def __init__(self) -> None:
        self._seen: Tensor | None = None

    def see(self, x: Tensor) -> None:
        """Look at a tensor."""
        finite = x.isfinite().all()
        self._seen = finite if self._seen is None else self._seen & finite

    def check(self) -> None:
        """Wait for the answer.

        Raises:
            FloatingPointError: something was not finite.
        """
        if self._seen is not None and not self._seen:
            raise FloatingPointError("decoded frames hold values that are not finite: the VAE's weights may be damaged")


def see_nothing(_pixels: Tensor) -> None:
    """For who does not want to know."""


@torch.inference_mode()
def decode(
    decoder: CausalDecoder,
    latents: Tensor,
    *,
    memory_saving: bool = False,
    rows: Rows = WHOLE,
    see: Callable[[Tensor], None] = see_nothing,
) -> Iterator[Tensor]:
    """Decode one clip.

    Args:
        latents: `[T, H, W, C]` as sampled (scaled), any floating dtype.
        memory_saving: keep the convolutions' halos on the host (see `halos.HostHalos`); the same result, slower.
        rows: those of `latents` that are decoded here.
        see: is shown each chunk's pixels, float32 `[frames, 8 rows, 8 W, 3]`, on the device.

    Yields:
        uint8 `[frames, 8 rows, 8 W, 3]` on the decoder's device: first 9 frames (or 1, or 8), then 8 each.
    """
    channels = decoder.config.latent_channels
    if latents.ndim != 4 or latents.shape[0] == 0 or latents.shape[3] != channels:
        raise ValueError(f"latents have shape {tuple(latents.shape)}; expected [frames, height, width, {channels}]")
    z = latents[:, rows.rows].to(decoder.device, decoder.dtype) / decoder.config.scaling_factor
    clip = decoder.open_clip(z, memory_saving=memory_saving, rows=rows)
    for start, stop in chunk_bounds(z.shape[0]):
        pixels = clip.decode_chunk(z[start:stop].contiguous())
        see(pixels)
        frames = to_uint8(pixels)
        del pixels  # before the next chunk is made
        yield frames


def to_host(chunks: Iterable[Tensor], stream: torch.cuda.Stream | None = None) -> Iterator[Tensor]:
    """Chunks on the host, each copied on a stream of its own while the device works on the next.

    Args:
        stream: on which chunks are made, if that is another one than the current: they are copied there.

    A chunk lies in one of two pinned buffers: it is valid until the next one is asked for.
    """
    pending: list[tuple[Tensor, torch.cuda.Event]] = []
    buffers: list[Tensor] = []
    for index, chunk in enumerate(chunks):
        if not chunk.is_cuda:
            yield chunk
            continue
        stream = stream or torch.cuda.Stream(chunk.device)
        if index < 2:
            buffers.append(torch.empty(chunk.shape, dtype=chunk.dtype, pin_memory=True))
        target = buffers[index % 2][: chunk.shape[0]]
        pending.append((target, copy_on(stream, chunk, target)))
        if len(pending) == 2:
            yield wait(*pending.pop(0))
    for entry in pending:
        yield wait(*entry)


def copy_on(stream: torch.cuda.Stream, chunk: Tensor, target: Tensor) -> torch.cuda.Event:
    stream.wait_stream(torch.cuda.current_stream(chunk.device))
    with torch.cuda.stream(stream):
        target.copy_(chunk, non_blocking=True)
        chunk.record_stream(stream)  # its memory must not be reused before the copy
    event = torch.cuda.Event()
    event.record(stream)
    return event


def wait(chunk: Tensor, event: torch.cuda.Event) -> Tensor:
    event.synchronize()
    return chunk
