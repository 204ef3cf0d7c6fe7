"""The element-wise steps: the plain ones against formulas, the fused ones' DiT against the plain one, the choice."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import relative_error
from model_helpers import random_norm, random_terms

from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.model import operations
from kandinsky.model.attention import BACKENDS
from kandinsky.model.layout import Clip, Segments, TokenLayout
from kandinsky.model.operations import PLAIN, Residual, choose_operations, fused
from kandinsky.model.rope import rotate

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
LENGTHS = (3, 4)


def normalised(x, norm):
    """LayerNorm in float64."""
    x = x.double()
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight.double() + norm.bias.double()


@pytest.mark.parametrize("with_residual", [True, False])
def test_add_norm(with_residual):
    tokens, norm, segments = torch.randn(7, 8), random_norm(8), Segments.of(LENGTHS, CPU)
    modulation, before = random_terms(2, 8)
    residual = Residual(torch.randn(7, 8), before.gate) if with_residual else None
    rows = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    stream = tokens if residual is None else tokens + residual.gate[rows] * residual.branch
    expected = normalised(stream, norm) * (1 + modulation.scale[rows]) + modulation.shift[rows]
    found, normed = PLAIN.add_norm(tokens, residual, norm, modulation, segments)
    torch.testing.assert_close(found, stream)
    torch.testing.assert_close(normed, expected.float())


def test_add_norm_rounds_once():
    """In float32, whatever the stream's dtype."""
    tokens, segments = torch.randn(7, 8).bfloat16(), Segments.of((7,), CPU)
    modulation, norm = random_terms(1, 8, dtype=torch.bfloat16)[0], random_norm(8, dtype=torch.bfloat16)
    terms = (modulation.scale[0].double(), modulation.shift[0].double())
    exact = normalised(tokens, norm) * (1 + terms[0]) + terms[1]
    _, normed = PLAIN.add_norm(tokens, None, norm, modulation, segments)
    assert normed.dtype == torch.bfloat16
    torch.testing.assert_close(normed, exact.bfloat16(), atol=0, rtol=2**-7)


def test_norm_rope():
    qkv, query_norm, key_norm = torch.randn(5, 3, 2, 8), random_norm(8), random_norm(8)
    angles = torch.randn(5, 4)
    rope = torch.stack((angles.cos(), angles.sin()), -1)
    found = PLAIN.norm_rope(qkv, query_norm, key_norm, rope, 0.3)
    torch.testing.assert_close(found[:, 0], 0.3 * rotate(normalised(qkv[:, 0], query_norm), rope).float())
    torch.testing.assert_close(found[:, 1], rotate(normalised(qkv[:, 1], key_norm), rope).float())
    assert torch.equal(found[:, 2], qkv[:, 2])


def test_gelu_is_exact():
    x = torch.linspace(-4, 4, 33)
    torch.testing.assert_close(PLAIN.gelu(x), 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))


def test_choice():
    assert choose_operations("auto", CPU) is PLAIN
    assert choose_operations("torch", CPU) is PLAIN


def test_a_card_that_they_are_not_for_gets_the_plain_ones_and_a_line(monkeypatch, caplog):
    monkeypatch.setattr(operations, "why_not_fused", lambda _device: "they are not for this card")
    assert choose_operations("auto", CUDA) is PLAIN
    assert [record.message for record in caplog.records] == [
        "PyTorch's own kernels are taken instead of the fused ones: they are not for this card"
    ]
    assert choose_operations("torch", CUDA) is PLAIN
    assert len(caplog.records) == 1
    for settings in ({"kernels": "triton"}, {"kernels": "auto", "quantise": True}):
        with pytest.raises(ValueError, match="they are not for this card"):
            choose_operations(device=CUDA, **settings)


def test_a_triton_that_cannot_be_imported(monkeypatch, caplog):
    """Installed, and broken: its library is for another Python, for example."""

    def broken(**_settings):
        raise OSError("libtriton.so: undefined symbol")

    monkeypatch.setattr(operations, "why_not_fused", lambda _device: None)
    monkeypatch.setattr(operations, "fused", broken)
    assert choose_operations("auto", CUDA) is PLAIN
    assert "Triton cannot be imported: OSError: libtriton.so" in caplog.text
    for settings in ({"kernels": "triton"}, {"kernels": "auto", "quantise": True}):
        with pytest.raises(ValueError, match=r"Triton cannot be imported: OSError: libtriton\.so"):
            choose_operations(device=CUDA, **settings)


def test_auto_has_something_to_fall_back_on_and_what_is_named_has_not(monkeypatch):
    monkeypatch.setattr(operations, "why_not_fused", lambda _device: None)
    monkeypatch.setattr(operations, "fused", lambda **_settings: replace(PLAIN, name="triton"))
    assert choose_operations("auto", CUDA).fallback is PLAIN
    assert choose_operations("triton", CUDA).fallback is None


@pytest.mark.parametrize(
    ("kernels", "quantise", "message"),
    [
        ("cuda", False, "kernels='cuda': allowed are 'auto', 'triton', 'torch'"),
        (
            "triton",
            False,
            "kernels='triton': Triton's kernels need a CUDA device, this is cpu; allowed: 'auto'",
        ),
        ("auto", True, "precision='fast' needs Triton's kernels"),
        ("torch", True, "precision='fast' needs Triton's kernels"),
    ],
)
def test_what_cannot_run_is_refused(kernels, quantise, message):
    with pytest.raises(ValueError, match=message):
        choose_operations(kernels, CPU, quantise=quantise)


CONFIG = replace(SIZES["tiny"].dit, model_dim=384, ff_dim=1536)


@pytest.fixture(scope="module")
def dit():
    return random_dit(CONFIG, torch.Generator("cuda").manual_seed(1))


def call(dit, layout=None, frames=3):
    generator = torch.Generator("cuda").manual_seed(2)
    visual = torch.randn(frames, 10, 14, 16, device="cuda", generator=generator)
    text = torch.randn(19, 64, device="cuda", generator=generator)
    times = [749] if layout is None else [749, 249]
    return dit(visual, text, torch.tensor(times, device="cuda"), layout)


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_fused_dit_is_as_exact_as_plain(dit, packed):
    layout = TokenLayout((Clip((1, 5, 7), 7), Clip((2, 5, 7), 12))) if packed else None
    plain = call(dit, layout)
    oracle_dit = random_dit(CONFIG, torch.Generator("cuda").manual_seed(1)).float()
    oracle = call(oracle_dit, layout)
    dit.operations, dit.attention = fused(), BACKENDS["bounded"]
    ours, again = call(dit, layout), call(dit, layout)
    dit.operations, dit.attention = PLAIN, BACKENDS["torch"]
    assert torch.equal(ours, again)
    assert relative_error(ours, oracle) < 1.1 * relative_error(plain, oracle)
