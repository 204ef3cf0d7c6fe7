"""What a causal convolution needs of the chunk before: the last frames of its input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kandinsky.vae.weights import CausalConv


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
        """`like`: latents [T, h, w, Z] of the clip, for size, dtype and device; `border`: of the windows."""
        self._shapes = {conv.slot: halo_shape(conv, like, border) for conv in convs}
        self._like = like
        self._buffers: dict[int, Tensor] = {}  # by slot
        self._filled: set[int] = set()

    def load(self, conv: CausalConv, window: Tensor) -> None:
        """Fill the window's halo. The first chunk continues its first frame into the past."""
        window[: conv.halo] = self._buffers[conv.slot] if conv.slot in self._filled else window[conv.halo]

    def store(self, conv: CausalConv, window: Tensor) -> None:
        if conv.slot not in self._buffers:
            self._make(self._shapes[conv.slot])
        self._buffers[conv.slot].copy_(window[-conv.halo :])
        self._filled.add(conv.slot)

    def _make(self, shape: tuple[int, ...]) -> None:
        slots = [slot for slot, other in self._shapes.items() if other == shape]
        flat = torch.empty(len(slots) * math.prod(shape), dtype=self._like.dtype, device=self._like.device)
        self._buffers.update(zip(slots, flat.view(len(slots), *shape), strict=True))
