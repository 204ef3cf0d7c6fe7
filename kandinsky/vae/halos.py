"""What a causal convolution needs of the chunk before: the last frames of its input.

They wait on the device (`Halos`), or in pinned memory of the host and come back one convolution ahead (`HostHalos`). In
the second form each chunk sends every halo over the bus once in each direction, beside the convolutions: it leaves
through one room on the device and comes back through another, on streams of their own, and the compute stream copies
between rooms and windows. On a CPU the same bookkeeping runs with plain copies.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from kandinsky.vae.decoder_weights import CausalConv


def halo_shape(conv: CausalConv, like: Tensor, border: int) -> tuple[int, ...]:
    """[halo, H, W, C] for latents `like` [T, h, w, Z] and windows with a border."""
    height, width = like.shape[1:3]
    return conv.halo, height * conv.scale + 2 * border, width * conv.scale, conv.in_channels


class Halos:
    """The last input frames of each causal convolution, kept from one chunk of a clip to the next.

    Those of one shape are one buffer, made when the first chunk comes to it, which is the longest, and written in
    place: made one by one they would split the allocator's blocks.
    """

    def __init__(self, convs: Sequence[CausalConv], like: Tensor, *, border: int):
        """`like`: latents [T, h, w, Z] of the clip, for size and device; `border`: of the windows."""
        self._kinds = {conv.slot: (halo_shape(conv, like, border), conv.dtype) for conv in convs}
        self._device = like.device
        self._buffers: dict[int, Tensor] = {}  # by slot
        self._filled: set[int] = set()

    def load(self, conv: CausalConv, window: Tensor) -> None:
        """Fill the window's halo. The first chunk continues its first frame into the past."""
        window[: conv.halo] = self._buffers[conv.slot] if conv.slot in self._filled else window[conv.halo]

    def store(self, conv: CausalConv, window: Tensor) -> None:
        if conv.slot not in self._buffers:
            self._make(*self._kinds[conv.slot])
        self._buffers[conv.slot].copy_(window[-conv.halo :])
        self._filled.add(conv.slot)

    def _make(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        slots = [slot for slot, other in self._kinds.items() if other == (shape, dtype)]
        flat = torch.empty(len(slots) * math.prod(shape), dtype=dtype, device=self._device)
        self._buffers.update(zip(slots, flat.view(len(slots), *shape), strict=True))


class HostHalos:
    """As `Halos`, in 2 GB less of the device's memory at 672x384 but for the two rooms, 0.5 GB."""

    def __init__(self, convs: Sequence[CausalConv], like: Tensor, *, border: int, streams: "Streams | None" = None):
        """`like`: latents [T, h, w, Z] of the clip, for size and device; `border`: of the windows; `streams`: where
        copies run, by default CUDA's for what is on a GPU, else none."""
        if streams is None and like.is_cuda:
            streams = torch.cuda
        self._convs = convs  # by slot, in the order in which they run
        shapes = [halo_shape(conv, like, border) for conv in convs]
        sizes = [math.prod(shape) * conv.dtype.itemsize for conv, shape in zip(convs, shapes, strict=True)]
        host = torch.device("cpu") if like.is_cuda else like.device
        flat = torch.empty(sum(sizes), dtype=torch.uint8, device=host, pin_memory=like.is_cuda)
        self.nbytes = flat.nbytes
        parts = zip(flat.split(sizes), convs, shapes, strict=True)
        self._host = [part.view(conv.dtype).view(shape) for part, conv, shape in parts]
        self._leaving = _Room(max(sizes), like.device, streams)
        self._coming = _Room(max(sizes), like.device, streams)
        self._come: int | None = None  # whose halo is in the second room, or on its way
        self._stored: set[int] = set()

    def load(self, conv: CausalConv, window: Tensor) -> None:
        """Fill the window's halo. The first chunk continues its first frame into the past."""
        if conv.slot not in self._stored:
            window[: conv.halo] = window[conv.halo]
            return
        if self._come != conv.slot:
            self._fetch(conv.slot)
        self._coming.wait()
        window[: conv.halo].copy_(self._coming.view(self._host[conv.slot]))
        following = (conv.slot + 1) % len(self._convs)
        if following in self._stored:
            self._fetch(following)

    def store(self, conv: CausalConv, window: Tensor) -> None:
        self._leaving.wait()
        room = self._leaving.view(self._host[conv.slot])
        room.copy_(window[-conv.halo :])
        with self._leaving.on_side():
            self._host[conv.slot].copy_(room, non_blocking=True)
        self._stored.add(conv.slot)

    def _fetch(self, slot: int) -> None:
        """Begin to bring a halo to the device. Its way out was over before: the side streams wait for each other."""
        self._coming.after(self._leaving)
        with self._coming.on_side():
            self._coming.view(self._host[slot]).copy_(self._host[slot], non_blocking=True)
        self._come = slot


class Streams(Protocol):
    """Queues of work on a device, which `torch.cuda` has."""

    @property
    def Stream(self) -> Callable[..., Any]:  # noqa: N802  # as torch.cuda calls it
        """Makes a new one on a device."""
        ...

    def current_stream(self, device: torch.device) -> Any:
        """The one that computes."""
        ...

    def stream(self, stream: Any) -> AbstractContextManager[Any]:
        """What is queued within goes to `stream`."""
        ...


class _Room:
    """A place on the device with a stream that copies to or from the host; without streams there is nothing to wait
    for."""

    def __init__(self, size: int, device: torch.device, streams: Streams | None):
        """`size` in bytes."""
        self._flat = torch.empty(size, dtype=torch.uint8, device=device)
        self._streams = streams
        self._side: Any = None if streams is None else streams.Stream(device)
        if self._flat.is_cuda:  # a last copy may be on its way when the clip is gone
            self._flat.record_stream(self._side)

    def view(self, like: Tensor) -> Tensor:
        """Of the shape and dtype of `like`."""
        return self._flat[: like.nbytes].view(like.dtype).view(like.shape)

    @contextmanager
    def on_side(self) -> Iterator[None]:
        """What is queued here runs after what the compute stream was given so far, and beside what it gets next."""
        if self._streams is None:
            yield
            return
        self._side.wait_stream(self._streams.current_stream(self._flat.device))
        with self._streams.stream(self._side):
            yield

    def wait(self) -> None:
        """The compute stream goes on when the copies are over."""
        if self._streams is not None:
            self._streams.current_stream(self._flat.device).wait_stream(self._side)

    def after(self, other: "_Room") -> None:
        """The copies from here on come after those of another room so far."""
        if self._streams is not None:
            self._side.wait_stream(other._side)
