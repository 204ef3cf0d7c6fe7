"""What the operations of a request return on the meta device, without PyTorch's own forms of them.

PyTorch computes many of these in Python, for which it imports its compiler and sympy: seconds, for a few sizes. What is
not in the tables here, or not of floating point, runs in PyTorch's form.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Size = Sequence[int]
aten = torch.ops.aten
CONVOLUTIONS = (aten.conv3d.default, aten.conv2d.default)


def result_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `func` returns; of kwargs, only a dtype matters to what the tables know."""
    size_of = _SIZES.get(func)
    tensors = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
    if size_of is None or not all(tensor.is_meta and tensor.is_floating_point() for tensor in tensors):
        return func(*args, **kwargs)
    dtypes = [tensor.dtype for tensor in tensors if tensor.ndim > 0] or [tensor.dtype for tensor in tensors]
    dtype = kwargs.get("dtype") or reduce(torch.promote_types, dtypes)
    return torch.empty(size_of(*args), dtype=dtype, device="meta")


def _same(x: Tensor, *_arguments: object) -> Size:
    return x.shape


def _broadcast(*arguments: object) -> Size:
    return torch.broadcast_tensors(*(value for value in arguments if isinstance(value, Tensor)))[0].shape


def _linear(x: Tensor, weight: Tensor, *_bias: object) -> Size:
    return (*x.shape[:-1], len(weight))


def _matmul(x: Tensor, other: Tensor) -> Size:
    """`other` is a matrix or a vector."""
    return (*x.shape[:-1], *other.shape[1:])


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Size:
    size = list(parts[0].shape)
    size[dim] = sum(part.shape[dim] for part in parts)
    return size


def _stack(parts: Sequence[Tensor], dim: int = 0) -> Size:
    size = list(parts[0].shape)
    size.insert(dim % (len(size) + 1), len(parts))
    return size


def _convolution(
    x: Tensor,
    weight: Tensor,
    _bias: object = None,
    stride: Size = (1,),
    padding: Size = (0,),
    dilation: Size = (1,),
    *_groups: int,
) -> Size:
    kernel = weight.shape[2:]
    stride, padding, dilation = (tuple(n) * (len(kernel) // len(n)) for n in (stride, padding, dilation))
    terms = zip(x.shape[-len(kernel) :], kernel, stride, padding, dilation, strict=True)
    spatial = [(size + 2 * pad - dil * (taps - 1) - 1) // step + 1 for size, taps, step, pad, dil in terms]
    return (*x.shape[: -len(kernel) - 1], len(weight), *spatial)


_SAME = (aten.layer_norm, aten.silu, aten.clamp, aten.exp, aten.cos, aten.sin, aten.empty_like, aten.zeros_like)
_BROADCAST = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.addcmul.default)
_SIZES: dict[Callable[..., Any], Callable[..., Size]] = {
    **dict.fromkeys([operation.default for operation in _SAME], _same),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    aten.linear.default: _linear,
    aten.matmul.default: _matmul,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
}
