"""The layers of the DiT against formulas of the papers and of the published weights' meaning."""

import math
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from model_helpers import SMALL_DIT
from torch import nn

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.model.attention import Attention, torch_sdpa
from kandinsky.model.layers import (
    FeedForward,
    ModulationLayer,
    OutLayer,
    TextEmbeddings,
    TimeEmbeddings,
    VisualEmbeddings,
    linear_into,
)
from kandinsky.model.operations import norm_rope
from kandinsky.model.quantised import Quantised

PATCH = {"ph": 2, "pw": 2}


def identity_(linear: nn.Linear) -> None:
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)


@torch.no_grad()
def test_patches_are_read_by_row_column_channel():
    layer = VisualEmbeddings(SMALL_DIT)
    layer.in_layer = nn.Linear(64, 64)
    identity_(layer.in_layer)
    visual = torch.randn(3, 4, 6, 16)
    expected = rearrange(visual, "t (h ph) (w pw) c -> (t h w) (ph pw c)", **PATCH)
    assert torch.equal(layer(visual), expected)


def test_patches_are_written_by_channel_row_column():
    """Another order than the input's, as the published weights mean it."""
    patches = torch.randn(3 * 2 * 4, 64)
    expected = rearrange(patches, "(t h w) (c ph pw) -> t (h ph) (w pw) c", t=3, h=2, **PATCH)
    assert torch.equal(OutLayer(SMALL_DIT).unpatch(patches, (3, 2, 4)), expected)


@torch.no_grad()
def test_sinusoids_of_the_timestep():
    """The two Linears see cosines, then sines, of falling frequencies."""
    layer, seen = TimeEmbeddings(8, 4), []
    layer.in_layer.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    assert layer(torch.tensor([[0, 999]])).shape == (1, 2, 4)
    angles = [999 * 10_000 ** (-index / 4) for index in range(4)]
    expected = torch.tensor([[math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]])
    torch.testing.assert_close(seen[0][0], torch.cat((torch.tensor([[1.0] * 4 + [0.0] * 4]), expected)))


@torch.no_grad()
def test_modulation_is_six_terms_of_the_activated_time():
    layer, time = ModulationLayer(4, 8), torch.randn(2, 3, 4)
    found = layer(time)
    assert found.shape == (2, 3, 6, 8)
    torch.testing.assert_close(found.flatten(-2), layer.out_layer(time * time.sigmoid()))
    out = OutLayer(SMALL_DIT)
    time = torch.randn(5, SMALL_DIT.time_dim)
    torch.testing.assert_close(out.modulation(time).flatten(-2), out.modulation_out(time * time.sigmoid()))


@torch.no_grad()
def test_inputs_are_taken_in_the_weights_dtype():
    text = TextEmbeddings(6, 8).bfloat16()(torch.randn(3, 6))
    visual = VisualEmbeddings(SMALL_DIT).bfloat16()(torch.randn(1, 2, 2, 16, dtype=torch.float64))
    time = TimeEmbeddings(8, 4).bfloat16()(torch.tensor([1]))
    assert {text.dtype, visual.dtype, time.dtype} == {torch.bfloat16}


@torch.no_grad()
def test_feed_forward():
    layer, x = FeedForward(8, 16), torch.randn(5, 8)
    hidden = layer.in_layer(x)
    expected = layer.out_layer(0.5 * hidden * (1 + torch.erf(hidden / 2**0.5)))
    torch.testing.assert_close(layer(x, nn.functional.gelu), expected)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_linear_writes_where_it_is_told(bias):
    linear, x = nn.Linear(8, 4, bias=bias), torch.randn(5, 8)
    whole = torch.full((7, 4), 9.0)
    linear_into(linear, x, whole[1:6])
    torch.testing.assert_close(whole[1:6], linear(x))
    assert (whole[[0, 6]] == 9).all()


def test_other_linears_are_given_the_place():
    """A float8 Linear, or rows that are quantised already."""

    class Other(nn.Module):
        def forward(self, x, *, out):
            out.copy_(x.values.float() * x.scale)

    rows, out = Quantised(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])), torch.empty(1, 2)
    linear_into(Other(), rows, out)
    assert out.tolist() == [[3.0, 6.0]]


def test_a_projection_is_given_to_who_norms_it_if_it_is_one_sequence():
    """A backend that makes its operands in the pass of the norms; cut streams are normed first, and cut then."""
    generator, text = torch.Generator().manual_seed(0), torch.randn(3, 64).bfloat16()
    dit = random_dit(SMALL_DIT, generator)
    calls = []

    def projected(qkv, *terms):
        calls.append("projected")
        return torch_sdpa(norm_rope(qkv, *terms))

    visual, time = torch.randn(2, 4, 4, 16).bfloat16(), torch.tensor([749])
    plain = dit(visual, text, time)
    dit.attention = Attention("own", lambda qkv: calls.append("packed") or torch_sdpa(qkv), attend_projected=projected)
    assert torch.equal(dit(visual, text, time), plain)
    assert calls == ["projected"] * 4
    layout = replace(dit.layout((2, 4, 4), 3), num_groups=(1, 2, 1))
    dit(visual, text, time, layout)
    assert set(calls[4:]) == {"packed"}
