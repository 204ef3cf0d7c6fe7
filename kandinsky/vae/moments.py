"""GroupNorm of one large clip on a GPU, whose moments all of the GPU works out.

PyTorch's kernel gives each group to one block: for a clip's 32 groups, of millions of values each, most of an H100
waits (40 % of the time that encoding nine frames of 672x384 took). Reductions over all of the GPU and an elementwise
kernel compute the same, up to rounding and the order of sums. On the CPU, and for batches, PyTorch's own is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """As `torch.nn.functional.group_norm`, of one clip `[1, C, ...]`, in float32 inside."""
    values = x.reshape(groups, -1)
    mean = values.mean(1, dtype=torch.float32)
    square = torch.linalg.vector_norm(values, dim=1, dtype=torch.float32).square() / values.shape[1]
    variance = (square - mean.square()).clamp(min=0)
    each = x.shape[1] // groups
    # With known moments of each channel a batch norm is one elementwise kernel.
    moments = mean.repeat_interleave(each), variance.repeat_interleave(each)
    scale, shift = (None if value is None else value.float() for value in (weight, bias))
    return F.batch_norm(x, *moments, scale, shift, training=False, eps=eps)


class WideGroupNorm(TorchFunctionMode):
    """Meanwhile `torch.nn.functional.group_norm` of one clip on a GPU is `group_norm`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """PyTorch's hook: called for each of its functions."""
        if func is F.group_norm and args[0].is_cuda and len(args[0]) == 1:
            return group_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
