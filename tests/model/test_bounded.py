"""Attention with bounded logits: the bound holds, what its kernels cannot read is refused, and it is exact."""

import math

import pytest
import torch
from model_helpers import NORM_WEIGHTS, attention_error, attention_inputs, check_kernel_for_any_logit, random_norm
from torch import nn

from kandinsky.model import bounded
from kandinsky.model.attention import BACKENDS
from kandinsky.model.bounded import (
    Logits,
    attend_any,
    attend_bounded,
    attend_for,
    attend_shifted,
    fit,
    largest,
    logit_bound,
    logit_spread,
    query_scale,
)
from kandinsky.model.rope import rotate


def test_the_bound_of_fresh_norms():
    assert logit_bound(nn.LayerNorm(64), nn.LayerNorm(64)) == pytest.approx(64 * math.log2(math.e) / 8)


def test_no_logit_is_beyond_the_bound():
    query_norm, key_norm = random_norm(64), random_norm(64)
    query, key = query_norm(torch.randn(2000, 64)), key_norm(torch.randn(2000, 64))
    largest = (query @ key.T).abs().max() * query_scale(64)
    assert largest < logit_bound(query_norm, key_norm) < 20 * largest


def test_one_large_channel_does_not_meet_another_norms():
    """The bound is over pairs of channels, which are all that RoPE mixes; the largest of each norm would give 8 x 8."""
    query_norm, key_norm = nn.LayerNorm(64), nn.LayerNorm(64)
    with torch.no_grad():
        query_norm.weight[4], key_norm.weight[20] = 8, 8
    assert logit_bound(query_norm, key_norm) == pytest.approx(8 * logit_bound(nn.LayerNorm(64), nn.LayerNorm(64)))
    query_norm.weight.data[4], key_norm.weight.data[5] = 8, 8  # of one pair
    assert logit_bound(query_norm, key_norm) == pytest.approx(64 * logit_bound(nn.LayerNorm(64), nn.LayerNorm(64)))


def test_the_spread_of_logits():
    """That of independent channels, and no less behind RoPE."""
    assert logit_spread(nn.LayerNorm(64), nn.LayerNorm(64)) == pytest.approx(math.log2(math.e))
    query_norm, key_norm = random_norm(64), random_norm(64)
    query, key = query_norm(torch.randn(4000, 64)), key_norm(torch.randn(4000, 64))
    angles = 6 * torch.rand(4000, 32)
    rope = torch.stack((angles.cos(), angles.sin()), -1)
    turned = [rotate(x[:, None], rope)[:, 0] for x in (query, key)]
    for q, k in ((query, key), turned):
        found = (q.square() * k.square()).sum(1).mean().sqrt() * query_scale(64)
        assert found < 1.03 * logit_spread(query_norm, key_norm) < 1.25 * found


def test_the_spread_when_rope_lays_one_channel_on_another():
    query_norm, key_norm = nn.LayerNorm(64), nn.LayerNorm(64)
    with torch.no_grad():
        query_norm.weight[4], key_norm.weight[5] = 3, 3  # of one pair
    assert logit_spread(query_norm, key_norm) == pytest.approx(query_scale(64) * math.sqrt(62 + 81 + 1))


def test_the_largest_of_several_blocks():
    blocks = [Logits(3.0, 1.0), Logits(2.0, 1.5)]
    assert largest(blocks) == Logits(3.0, 1.5)
    assert fit(largest(blocks)) == (attend_bounded, None)


def test_the_form_follows_the_norms():
    norms = {weight: nn.LayerNorm(64) for weight in (1, 2, 4, 8)}
    for weight, norm in norms.items():
        nn.init.constant_(norm.weight, weight)
    forms = [attend_for(logit_bound(norm, norm)) for norm in norms.values()]
    assert forms == [attend_bounded, attend_bounded, attend_shifted, attend_any]


def test_a_sum_of_the_largest_weights_is_finite():
    """The reason for `MAX_LOGIT`."""
    largest = torch.tensor(bounded.MAX_LOGIT).exp2()
    assert (largest * 2**20).isfinite()
    assert 1 / largest >= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(
    "qkv",
    [
        torch.zeros(5, 3, 2, 64, dtype=torch.bfloat16),
        torch.zeros(5, 3, 2, 64),
        torch.zeros(5, 3, 2, 32, dtype=torch.bfloat16, device="meta"),
    ],
    ids=["on the host", "float32", "other heads"],
)
def test_what_the_kernels_cannot_read_is_named(qkv):
    with pytest.raises(ValueError, match=r"takes bfloat16 \[tokens, 3, heads, 64\] on a GPU, got torch"):
        attend_bounded(qkv)


@pytest.mark.gpu
@pytest.mark.parametrize(("weight", "outlier"), NORM_WEIGHTS)
def test_the_form_for_any_norms_is_exact(weight, outlier):
    norm = nn.LayerNorm(64)
    nn.init.constant_(norm.weight, weight)
    norm.weight.data[9] = outlier
    attend = attend_for(logit_bound(norm, norm))
    check_kernel_for_any_logit(lambda qkv, out: out.copy_(attend(qkv)), weight, outlier)


@pytest.mark.gpu
def test_it_is_as_exact_as_cudnn():
    qkv = attention_inputs(6000, 4)
    scaled = qkv.clone()
    scaled[:, 0] *= query_scale(64)
    exact = qkv.clone()
    exact[:, 0] /= 8
    ours = attention_error(BACKENDS["bounded"].attend(scaled.bfloat16()), exact)
    assert ours < 1.1 * attention_error(BACKENDS["cudnn"].attend(qkv.bfloat16()), exact)
