"""One launch of what was chosen "auto", before it is relied on: what fails is not taken, whatever it fails with.

A missing C compiler is a CalledProcessError or a RuntimeError, a card with too little shared memory Triton's
OutOfResources, a card that the assembler does not know PTXASError, and none of these have a base class but Exception.
"""

import logging

import torch
from torch import nn

from kandinsky.model.fused_support import first_line
from kandinsky.model.layout import Segments
from kandinsky.model.operations import Modulation, Operations, Residual

_log = logging.getLogger(__name__)
TOKENS = 16


@torch.inference_mode()
def operations_that_run(
    operations: Operations, *, device: torch.device, dtype: torch.dtype, model_dim: int, head_dim: int
) -> Operations:
    """`operations`, or if they fail on a few random tokens what they have to fall back on.

    Args:
        operations: with a `fallback`; without one nothing is tried.
        device, dtype: of the model.
        model_dim, head_dim: sizes of the model, for which kernels are compiled that it needs later anyway.
    """
    if operations.fallback is None:
        return operations
    try:
        _launch(operations, device=device, dtype=dtype, model_dim=model_dim, head_dim=head_dim)
    except Exception as error:  # noqa: BLE001  # see the module's docstring
        _log.warning("the fused kernels do not run here, PyTorch's own are taken: %s", first_line(error))
        return operations.fallback
    return operations


def _launch(operations: Operations, *, device: torch.device, dtype: torch.dtype, model_dim: int, head_dim: int) -> None:
    place = {"device": device, "dtype": dtype}
    segments = Segments.of((TOKENS,), device)
    tokens, terms = torch.zeros(TOKENS, model_dim, **place), torch.zeros(1, 6, model_dim, **place).unbind(1)
    modulation = Modulation(*terms[:3])
    norm = nn.LayerNorm(model_dim, **place)
    tokens, _ = operations.add_norm(tokens, None, norm, modulation, segments)
    operations.add_norm(tokens, Residual(tokens, modulation.gate), norm, modulation, segments)
    qkv = torch.zeros(TOKENS, 3, model_dim // head_dim, head_dim, **place)
    head_norm, rope = nn.LayerNorm(head_dim, **place), torch.zeros(TOKENS, head_dim // 2, 2, device=device)
    operations.norm_rope(qkv, head_norm, head_norm, rope, 1.0)
    operations.gelu(tokens)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
