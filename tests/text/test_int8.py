"""T5 in 8 bits: near, smaller, and only if asked for."""

import torch
from helpers import TINY, relative_error
from torch import nn

from kandinsky.factory import get_T2V_pipeline
from kandinsky.text.int8 import Int8Linear


def test_product_is_near():
    linear = nn.Linear(256, 64, bias=False).requires_grad_(False)
    x = torch.randn(5, 256)
    assert relative_error(Int8Linear(linear)(x), linear(x)) < 0.01


def test_scaled_integers_are_exact():
    linear = nn.Linear(4, 2, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.tensor([[127.0, -3, 0, 1], [0.5, 0, -127 / 2, 1]]))
    assert torch.equal(Int8Linear(linear)(torch.eye(4)), linear.weight.T)


def test_text_encoder_in_8_bits(pipe):
    other = get_T2V_pipeline("cpu", cache_dir=TINY, text_encoder_int8=True, progress=False)
    expected, found = pipe.text_encoder("a cat"), other.text_encoder("a cat")
    assert 0 < relative_error(found, expected) < 0.03
    assert not any(isinstance(module, nn.Linear) for module in other.text_encoder.model.modules())
    assert other.text_encoder.fingerprint != pipe.text_encoder.fingerprint
