"""What the tests of the DiT share: a very small one, and the oracles of attention."""

import math

import torch
import torch.nn.functional as F
from helpers import relative_error
from torch import Tensor, nn

from kandinsky.config import DiTConfig
from kandinsky.model.bounded import query_scale
from kandinsky.model.operations import Modulation

SMALL_DIT = DiTConfig(
    in_visual_dim=16,
    in_text_dim=64,
    out_visual_dim=16,
    time_dim=16,
    patch_size=(1, 2, 2),
    model_dim=32,
    ff_dim=64,
    num_blocks=2,
    axes_dims=(4, 6, 6),
)
"""Two heads of 16 channels."""
LENGTHS = [(1, 6), (63, 2), (64, 1), (65, 3), (128, 2), (129, 12), (191, 1), (225, 48), (1008, 24), (4173, 6)]
"""(tokens, heads) beside the edges of the kernels' tiles."""


def oracle(qkv: Tensor, queries: int | None = None) -> Tensor:
    """Attention in float64, `[tokens, 3, heads, head_dim]` to `[tokens or queries, heads, head_dim]`."""
    query, key, value = qkv.double().permute(1, 2, 0, 3)
    weights = (query[:, :queries] @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ value).transpose(0, 1)


def random_norm(dim: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.LayerNorm:
    """A LayerNorm whose weights and biases are not those of a fresh one."""
    layer = nn.LayerNorm(dim, eps=1e-5, device=device, dtype=dtype)
    nn.init.normal_(layer.weight, 1.0, 0.2)
    nn.init.normal_(layer.bias, 0.0, 0.2)
    return layer.requires_grad_(False)


def random_terms(
    segments: int, dim: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Modulation, Modulation]:
    """Modulation of a block's two sub-layers."""
    terms = 0.3 * torch.randn(segments, 6, dim, device=device, dtype=dtype)
    attention, feed_forward = terms.split(3, dim=1)
    return Modulation(*attention.unbind(1)), Modulation(*feed_forward.unbind(1))


def attention_inputs(tokens: int, heads: int) -> Tensor:
    """`[tokens, 3, heads, 64]` on the GPU, queries and keys normalised as the model's are."""
    query, key = (F.layer_norm(torch.randn(tokens, heads, 64, device="cuda"), (64,)) for _ in range(2))
    value = torch.randn(tokens, heads, 64, device="cuda")
    return torch.stack((query, key, value), 1)


def attention_error(output: Tensor, qkv: Tensor) -> float:
    """Relative error of first and last head against float64, given bfloat16 inputs as the backend saw them."""
    errors = []
    for head in {0, qkv.shape[2] - 1}:
        query, key, value = qkv[:, :, head].double().unbind(1)
        errors.append(relative_error(output[:, head], (query @ key.T).softmax(-1) @ value))
    return max(errors)


def check_bounded_kernel(launch, tokens: int, heads: int) -> None:
    """One of the two kernels of bounded attention is exact, the same each time, and reads no row beside its own."""
    qkv = attention_inputs(tokens, heads)
    qkv[:, 0] *= query_scale(64)
    longer = torch.full((tokens + 200, 3, heads, 64), math.nan, device="cuda", dtype=torch.bfloat16)
    view = longer[100 : 100 + tokens]  # a slice: what lies beside it must not be read
    view.copy_(qkv)
    outputs = []
    for _ in range(2):
        out = torch.full((tokens, heads, 64), math.nan, device="cuda", dtype=torch.bfloat16)
        launch(view, out)
        outputs.append(out)
    seen = view.double()
    seen[:, 0] *= math.log(2)
    # With few keys the rounding of the weights and that of the result, 2^-8 each, do not average out.
    assert attention_error(outputs[0], seen) < (2.9e-3 if tokens > 60 else 2**-7)
    assert torch.equal(*outputs)


def check_kernel_for_any_logit(launch, weight: float, outlier: float) -> torch.Tensor | None:
    """A form of `bounded` for larger logits is exact for these weights of norms and for a key far above all others.

    Args:
        weight: of the query and key norm, all channels but one.
        outlier: of that one channel.

    Returns:
        What `launch` does.
    """
    tokens, heads = 4173, 4
    qkv = attention_inputs(tokens, heads)
    qkv[:, :2] *= torch.full((64,), weight, device="cuda").index_fill(0, torch.tensor([9], device="cuda"), outlier)
    qkv[10, 1, 0] = qkv[5, 0, 0]  # the first head's query 5 finds its like far from the first tile
    qkv[:, 0] *= query_scale(64)
    qkv = qkv.bfloat16()
    out = torch.full((tokens, heads, 64), math.nan, device="cuda", dtype=torch.bfloat16)
    flags = launch(qkv, out)
    seen = qkv.double()
    seen[:, 0] *= math.log(2)
    # A row that sees few keys does not average the rounding of its weights out: 2^-9 for them and for the result.
    assert attention_error(out, seen) < 4e-3
    assert relative_error(out[5, 0], (seen[5, 0, 0] @ seen[:, 1, 0].T).softmax(-1) @ seen[:, 2, 0]) < 2**-7
    return flags


NORM_WEIGHTS = [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0), (1.0, 30.0)]
"""(all channels, one channel) of query and key norms."""


def stored(values: torch.Tensor) -> torch.Tensor:
    """`[tokens, heads, 64]` as 8-bit attention reads it: transposed, keys 0, 1, 8, 9, 2, 3, 10, 11, ... of each 16."""
    tokens, heads, dim = values.shape
    padded = torch.nn.functional.pad(values, (0, 0, 0, 0, 0, -tokens % 128))
    sixteen = padded.view(-1, 2, 4, 2, heads, dim)  # half, thread, one of two
    return sixteen.transpose(1, 2).reshape(-1, heads, dim).permute(1, 2, 0).contiguous()
