"""How exactly the DiT's blocks are computed: a value for each name that `precision` may have.

Everything that a precision decides hangs on its value: which operations run, what becomes of a block's Linears, which
attention is taken unasked, what a converted file is called and holds, which GPUs can run it. Below the place where the
name is looked up nobody compares names. A new precision is a row of `PRECISIONS` and a name in `config`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from kandinsky.config import PRECISIONS as NAMES
from kandinsky.model.attention import FLOAT8, Attention
from kandinsky.model.operations import Operations, choose_operations
from kandinsky.model.quantised import quantise_weight

LINEARS = ("to_query_key_value", "output_layer", "in_layer", "out_layer")
"""Names of the Linears in a block's attention and feed-forward, which a precision may compute in another way."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One way to compute the blocks.

    Args:
        name: as the user says it.
        file_suffix: what a converted checkpoint has in its name before the ending.
        operations: (kernels, device) -> the element-wise steps that go with it; ValueError where they cannot run.
        convert_block_: replaces the Linears of a block whose weights are there; those that are replaced already stay.
        quantise: a weight `[out, in]` to its 8-bit form and float32 scales `[1, out]`; None if they stay as they are.
        capability: smallest CUDA compute capability; None runs on any device.
        attention: the backend that goes with it where none is named and it runs; None is the fastest exact one.
    """

    name: str
    file_suffix: str
    operations: Callable[[str, torch.device], Operations]
    convert_block_: Callable[[nn.Module], None]
    quantise: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    capability: tuple[int, int] | None
    attention: Attention | None

    @property
    def is_exact(self) -> bool:
        """Whether weights stay as they are published."""
        return self.quantise is None


def is_block_linear(name: str) -> bool:
    """Whether a key of the state dict is the weight of one of a block's `LINEARS`."""
    block, _, rest = (
        name.partition(".self_attention.") if ".self_attention." in name else name.partition(".feed_forward.")
    )
    return block.startswith("transformer_blocks.") and rest.removesuffix(".weight") in LINEARS


def _keep_(_block: nn.Module) -> None:
    """Linears stay Linears."""


def _to_float8_(block: nn.Module) -> None:
    from kandinsky.model.float8 import quantise_block_  # needs Triton

    quantise_block_(block)


EXACT = Precision(
    name="exact",
    file_suffix="",
    operations=partial(choose_operations, quantise=False),
    convert_block_=_keep_,
    quantise=None,
    capability=None,
    attention=None,
)
FAST = Precision(
    name="fast",
    file_suffix="_fast",
    operations=partial(choose_operations, quantise=True),
    convert_block_=_to_float8_,
    quantise=quantise_weight,
    capability=(8, 9),
    attention=FLOAT8,
)
PRECISIONS: Mapping[str, Precision] = MappingProxyType(dict(zip(NAMES, (EXACT, FAST), strict=True)))
"""From the most exact to the fastest."""


def precision_of(name: object) -> Precision:
    """The value of a precision's name.

    Raises:
        ValueError: there is no such precision; the message names those that there are.
    """
    if not isinstance(name, str) or name not in PRECISIONS:
        raise ValueError(f"precision={name!r}: allowed are {', '.join(map(repr, PRECISIONS))}")
    return PRECISIONS[name]
