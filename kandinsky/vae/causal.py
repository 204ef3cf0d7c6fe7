"""Causal 3x3x3 convolutions over a stream of chunks: a padded window per convolution and the halo between chunks.

The window is [halo + frames, H, W, C]; the norm before the convolution writes its result straight behind the halo. A
window that would be too large is filled and convolved a few frames at a time: causal in time, so exact.

Doesn't pad in space: the convolution's own zero padding measured as fast, and needs no border.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kandinsky.vae.activation import Activation, Time
from kandinsky.vae.decoder_weights import CausalConv
from kandinsky.vae.float8_kernel import Float8Kernel
from kandinsky.vae.halos import Halos, HostHalos
from kandinsky.vae.rows import Rows

Fill = Callable[[int, int, Tensor], None]
"""fill(start, stop, out): write input frames start..stop to out [stop - start, H, W, C]."""


def convolve(x: Tensor, kernel: Tensor | Float8Kernel, out: Tensor, *, border: int) -> None:
    """A convolution without bias, zero padding 1 in space (or `border` rows that x has already), none in time.

    x: [T, H, W, I], kernel [O, I, kt, 2 + P, 2 + P] gives out [T - kt + 1, H / P, W / P, O]; a kernel [O, I, 2, 2]
    takes each frame alone and gives out [T, H + 1, W + 1, O]. Strides in memory are those of channels_last(_3d) all
    along: the batch axis must be added before the permutation, or torch takes the tensor for a strided one and copies.
    """
    if isinstance(kernel, Float8Kernel):
        kernel.run(x, kernel, out, border=border)
        return
    if kernel.ndim == 5:
        x, out, padding = x[None].permute(0, 4, 1, 2, 3), out[None].permute(0, 4, 1, 2, 3), (0, 1 - border, 1)
        stride = (1, kernel.shape[-1] - 2, kernel.shape[-1] - 2)
    else:
        x, out, padding, stride = x.permute(0, 3, 1, 2), out.permute(0, 3, 1, 2), (1 - border, 1), (1, 1)
    once = (1,) * len(padding)
    if x.is_cuda and torch.backends.cudnn.is_available():
        # cuDNN's first choice: trying all its engines costs 10 s at the first call and gains nothing.
        torch.ops.aten.cudnn_convolution.out(x, kernel, padding, stride, once, 1, False, False, False, out=out)
    elif x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        # PyTorch's own choice for these strides is its plain loop, several times slower.
        out.copy_(torch.ops.aten.mkldnn_convolution(x, kernel, None, padding, stride, once, 1))
    else:
        out.copy_((F.conv3d if kernel.ndim == 5 else F.conv2d)(x, kernel, padding=padding, stride=stride))


def causal_convolution(
    conv: CausalConv,
    halos: Halos | HostHalos,
    fill: Fill,
    *,
    like: Activation,
    rows: Rows,
    max_bytes: int,
    in_place: bool = False,
) -> Activation:
    """Fill windows and convolve them.

    Args:
        fill: writes frames of these rows, without the border.
        like: frames, size and channels of the input, after `fill`; paired frames are given once.
        max_bytes: most that a window may take, where the halo leaves a choice.
        in_place: `fill` reads only the frames that it writes, from `like`, whose memory the result may take where it
            has the same shape and order: a frame is written when it was read.
    """
    frames, (height, width), channels = like.stored_frames, like.size, like.channels
    frame_bytes = conv.dtype.itemsize * height * width * channels
    block = frames_per_window(frames, conv.halo, frame_bytes=frame_bytes, max_bytes=max_bytes)
    border = rows.border
    window = like.data.new_empty(conv.halo + block, height + 2 * border, width, channels, dtype=conv.dtype)
    total = frames if len(conv.kernels) == 1 else like.frames
    shape = (total, height // conv.stride, width // conv.stride, conv.out_channels)
    reuse = in_place and like.time is Time.NATURAL and like.data.shape == shape
    out = like.data if reuse else like.data.new_empty(shape)
    for start in range(0, frames, block):
        stop = min(start + block, frames)
        if start > 0:
            window[: conv.halo] = window[block:]  # no overlap: block >= halo
        filled = window[: conv.halo + stop - start]
        fresh = filled[conv.halo :]
        fill(start, stop, fresh[:, border : border + height])
        rows.fill_border(fresh)
        if start == 0:
            halos.load(conv, filled)
        if stop == frames:
            halos.store(conv, filled)
        if len(conv.kernels) == 1:
            convolve(filled, conv.kernels[0], out[start:stop], border=border)
        else:
            convolve_pairs(filled, conv, like=like, out=out, start=start, border=border)
    return Activation(out, total, Time.NATURAL if len(conv.kernels) == 1 else Time.SPLIT)


def convolve_pairs(window: Tensor, conv: CausalConv, *, like: Activation, out: Tensor, start: int, border: int) -> None:
    """Even frames to the front half of `out`, odd ones to the back half; a first frame that is alone has no odd one."""
    even, odd = conv.kernels
    stop = start + window.shape[0] - conv.halo
    convolve(window, even, out[start:stop], border=border)
    skip = like.first if start == 0 else 0
    behind = like.stored_frames - like.first
    if start + skip < stop:
        convolve(window[skip:], odd, out[behind + start + skip : behind + stop], border=border)


def frames_per_window(frames: int, halo: int, *, frame_bytes: int, max_bytes: int) -> int:
    """Equal parts that fit, but never fewer frames than the halo."""
    most = max(max_bytes // frame_bytes - halo, halo, 1)
    parts = -(-frames // most)
    return max(-(-frames // parts), halo)
