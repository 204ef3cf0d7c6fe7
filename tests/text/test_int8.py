"""T5 in 8 bits: near, smaller, and only if asked for."""

import copy

import pytest
import torch
from fakes import CPU
from helpers import relative_error
from torch import nn

from kandinsky.text.int8 import Int8Linear, quantise_linears_


def test_product_is_near():
    torch.manual_seed(0)
    linear = nn.Linear(256, 64, bias=False).requires_grad_(False)
    x = torch.randn(5, 256)
    assert 0 < relative_error(Int8Linear(linear)(x), linear(x)) < 0.01
    assert Int8Linear(linear)(x.bfloat16()).dtype == torch.bfloat16


def test_scaled_integers_are_exact():
    linear = nn.Linear(4, 2, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.tensor([[127.0, -3, 0, 1], [0.5, 0, -127 / 2, 1]]))
    assert torch.equal(Int8Linear(linear)(torch.eye(4)), linear.weight.T)


def test_a_row_of_zeros_stays_one():
    linear = nn.Linear(4, 2, bias=False).requires_grad_(False)
    linear.weight.zero_()
    assert torch.equal(Int8Linear(linear)(torch.ones(1, 4)), torch.zeros(1, 2))


def test_a_bias_is_refused():
    with pytest.raises(AssertionError, match="T5 has no biases"):
        Int8Linear(nn.Linear(4, 2))


def test_a_text_encoder(pipe):
    """Every Linear is quantised, whatever it is in; nothing else is."""
    model = pipe.text_encoder.model
    other = copy.deepcopy(model)
    quantise_linears_(other, CPU)
    linears = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    assert [name for name, part in other.named_modules() if isinstance(part, Int8Linear)] == linears
    assert not any(isinstance(part, nn.Linear) for part in other.modules())
    assert {name for name, _ in other.named_parameters()} == {
        name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in linears
    }
    ids = pipe.text_encoder.encoder.tokenize("a cat")[0]
    with torch.inference_mode():
        assert 0 < relative_error(other(ids), model(ids)) < 0.03
