"""The fused kernels, float8 and attention on a GPU, each against its plain twin or a float32 oracle on random input."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import TINY, relative_error
from torch import nn

from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.factory import get_T2V_pipeline
from kandinsky.model import bounded
from kandinsky.model.attention import BACKENDS, choose_attention
from kandinsky.model.layout import Clip, Segments, TokenLayout
from kandinsky.model.operations import PLAIN, Modulation, Residual, fused

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
EXACT = 6e-3
"""Relative: two roundings to bfloat16 that may fall to either side."""


def norm(dim):
    layer = nn.LayerNorm(dim, eps=1e-5, device=CUDA, dtype=torch.bfloat16)
    nn.init.normal_(layer.weight, 1.0, 0.2)
    nn.init.normal_(layer.bias, 0.0, 0.2)
    return layer.requires_grad_(False)


def rows(*shape):
    return torch.randn(*shape, device=CUDA, dtype=torch.bfloat16)


def terms(segments, dim):
    attention, feed_forward = (0.3 * rows(segments, 6, dim)).split(3, dim=1)
    return Modulation(*attention.unbind(1)), Modulation(*feed_forward.unbind(1))


@pytest.mark.parametrize("dim", [128, 3072])
@pytest.mark.parametrize("lengths", [(1000, 225), (1, 1), (37, 5, 200, 7)])
@pytest.mark.parametrize("with_residual", [True, False])
def test_add_norm(dim, lengths, with_residual):
    tokens, segments = 3 * rows(sum(lengths), dim), Segments.of(lengths, CUDA)
    modulation, before = terms(len(lengths), dim)
    residual = Residual(rows(sum(lengths), dim), before.gate) if with_residual else None
    layer = norm(dim)
    expected = PLAIN.add_norm(tokens, residual, layer, modulation, segments)
    found = fused().add_norm(tokens, residual, layer, modulation, segments)
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative_error(ours, plain) < EXACT


@pytest.mark.parametrize(("heads", "head_dim"), [(2, 64), (48, 64), (6, 64), (3, 40)])
@pytest.mark.parametrize("scale", [1.0, math.log2(math.e) / 8])
def test_norm_rope(heads, head_dim, scale):
    qkv, query_norm, key_norm = rows(301, 3, heads, head_dim), norm(head_dim), norm(head_dim)
    angles = torch.randn(301, head_dim // 2, device=CUDA)
    rope = torch.stack((angles.cos(), angles.sin()), -1)
    expected = PLAIN.norm_rope(qkv, query_norm, key_norm, rope, scale)
    found = fused().norm_rope(qkv.clone(), query_norm, key_norm, rope, scale)
    assert relative_error(found, expected) < EXACT
    assert torch.equal(found[:, 2], qkv[:, 2])


@pytest.mark.parametrize("dim", [128, 1536, 12288])
@pytest.mark.parametrize("offset", [0.0, -4.0])
def test_gelu_quantise(dim, offset):
    """Every value within e4m3's half step, also where the whole row is negative and GELU tiny."""
    x = 2 * rows(77, dim) + offset
    quantised, expected = fused(quantise=True).gelu(x), F.gelu(x.float())
    found = quantised.values.float() * quantised.scale
    assert ((found - expected).abs() <= expected.abs() / 15 + quantised.scale * 2**-9).all()


@pytest.mark.parametrize("dim", [128, 3072, 12288])
def test_float8_rows(dim):
    """Largest magnitude of a row is representable; every value within e4m3's half step of 1/16."""
    x = rows(33, dim) * torch.logspace(-3, 3, 33, device=CUDA)[:, None].bfloat16()
    from kandinsky.model.kernels import quantise_rows

    quantised = quantise_rows(x)
    back = quantised.values.float() * quantised.scale
    assert relative_error(back.abs().amax(1), x.float().abs().amax(1)) < 1e-3
    assert ((back - x.float()).abs() <= x.float().abs() / 16 + quantised.scale * 2**-9).all()


def test_float8_linear():
    from kandinsky.model.float8 import Float8Linear

    linear = nn.Linear(3072, 768, device=CUDA, dtype=torch.bfloat16).requires_grad_(False)
    x = rows(1001, 3072)
    assert (
        relative_error(Float8Linear(linear)(x), F.linear(x.float(), linear.weight.float(), linear.bias.float())) < 0.06
    )


def attention_inputs(tokens, heads):
    query, key = (F.layer_norm(torch.randn(tokens, heads, 64, device=CUDA), (64,)) for _ in range(2))
    value = torch.randn(tokens, heads, 64, device=CUDA)
    return torch.stack((query, key, value), 1)


def attention_error(output, qkv):
    """Relative error of first and last head against float64, given bfloat16 inputs as the backend saw them."""
    errors = []
    for head in {0, qkv.shape[2] - 1}:
        query, key, value = qkv[:, :, head].double().unbind(1)
        errors.append(relative_error(output[:, head], (query @ key.T).softmax(-1) @ value))
    return max(errors)


KERNELS = ["hopper", "triton"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("tokens", "heads"),
    [(1, 6), (63, 2), (64, 1), (65, 3), (128, 2), (129, 12), (191, 1), (225, 48), (1008, 24), (4173, 6)],
)
def test_bounded_attention(kernel, tokens, heads):
    from kandinsky.model import hopper, triton_attention

    if kernel == "hopper" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    launch = {"hopper": hopper.launch, "triton": triton_attention.launch}[kernel]
    qkv = attention_inputs(tokens, heads)
    qkv[:, 0] *= bounded.query_scale(64)
    longer = torch.full((tokens + 200, 3, heads, 64), math.nan, device=CUDA, dtype=torch.bfloat16)
    view = longer[100 : 100 + tokens]  # a slice: what lies beside it must not be read
    view.copy_(qkv)
    outputs = []
    for _ in range(2):
        out = torch.full((tokens, heads, 64), math.nan, device=CUDA, dtype=torch.bfloat16)
        launch(view, out)
        outputs.append(out)
    seen = view.double()
    seen[:, 0] *= math.log(2)
    # With few keys the rounding of the weights and that of the result, 2^-8 each, do not average out.
    assert attention_error(outputs[0], seen) < (2.9e-3 if tokens > 60 else 2**-7)
    assert torch.equal(*outputs)


def test_bounded_attention_is_as_exact_as_cudnn():
    qkv = attention_inputs(6000, 4)
    scaled = qkv.clone()
    scaled[:, 0] *= bounded.query_scale(64)
    exact = qkv.clone()
    exact[:, 0] /= 8
    ours = attention_error(BACKENDS["bounded"].attend(scaled.bfloat16()), exact)
    assert ours < 1.1 * attention_error(BACKENDS["cudnn"].attend(qkv.bfloat16()), exact)


def test_auto_takes_a_backend_that_is_right():
    arguments = {"device": CUDA, "dtype": torch.bfloat16, "head_dim": 64}
    assert choose_attention("auto", bound=12.0, **arguments).name in BACKENDS
    assert choose_attention("auto", bound=101.0, **arguments).name != "bounded"
    with pytest.raises(ValueError, match=r"this checkpoint's query and key norms allow 2\^101"):
        choose_attention("bounded", bound=101.0, **arguments)


CONFIG = replace(SIZES["tiny"].dit, model_dim=384, ff_dim=1536)


@pytest.fixture(scope="module")
def dit():
    return random_dit(CONFIG, torch.Generator(CUDA).manual_seed(1))


def call(dit, layout=None, frames=3):
    generator = torch.Generator(CUDA).manual_seed(2)
    visual = torch.randn(frames, 10, 14, 16, device=CUDA, generator=generator)
    text = torch.randn(19, 64, device=CUDA, generator=generator)
    times = [749] if layout is None else [749, 249]
    return dit(visual, text, torch.tensor(times, device=CUDA), layout)


@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_fused_dit_is_as_exact_as_plain(dit, packed):
    layout = TokenLayout((Clip((1, 5, 7), 7), Clip((2, 5, 7), 12))) if packed else None
    plain = call(dit, layout)
    oracle_dit = random_dit(CONFIG, torch.Generator(CUDA).manual_seed(1)).float()
    oracle = call(oracle_dit, layout)
    dit.operations, dit.attention = fused(), BACKENDS["bounded"]
    ours, again = call(dit, layout), call(dit, layout)
    dit.operations, dit.attention = PLAIN, BACKENDS["torch"]
    assert torch.equal(ours, again)
    assert relative_error(ours, oracle) < 1.1 * relative_error(plain, oracle)


def test_fast_precision_is_near_exact():
    exact, fast = (
        get_T2V_pipeline("cuda", cache_dir=TINY, precision=precision, progress=False) for precision in ("exact", "fast")
    )
    frames = [pipe("a cat", time_length=0, width=512, height=512, seed=1)[0] for pipe in (exact, fast)]
    first, second = (torch.frombuffer(bytearray(frame.tobytes()), dtype=torch.uint8).float() for frame in frames)
    assert not torch.equal(first, second)
    assert (first - second).abs().mean() < 20


def test_steps_wait_for_nothing():
    """A step must not synchronise: the driver reports every wait as an error meanwhile."""
    pipe = get_T2V_pipeline("cuda", cache_dir=TINY, progress=False)
    text = pipe.text_encoder("a cat")
    with torch.inference_mode():
        context = pipe.dit.prepare(text, pipe.modulation, pipe.dit.layout((3, 32, 32), len(text)))
        latents = torch.randn(3, 32, 32, 16, device=CUDA, dtype=torch.bfloat16)
        expected = pipe.dit.step(latents, context, 1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            velocity = pipe.dit.step(latents, context, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(velocity, expected)


def test_text_encoder_graph_equals_eager():
    pipe = get_T2V_pipeline("cuda", cache_dir=TINY, progress=False)
    eager, captured, replayed = (pipe.text_encoder("a cat") for _ in range(3))
    other = pipe.text_encoder("a dog")
    assert torch.equal(eager, captured)
    assert torch.equal(eager, replayed)
    assert not torch.equal(eager, other)
