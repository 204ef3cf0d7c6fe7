"""How the blocks' Linears are computed: names, which weights a precision is about, and how near the fast one is."""

import pytest
import torch
from helpers import TINY
from model_helpers import SMALL_DIT

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.config import PRECISIONS as NAMES
from kandinsky.factory import get_T2V_pipeline
from kandinsky.model.attention import BACKENDS
from kandinsky.model.operations import PLAIN
from kandinsky.model.precision import EXACT, FAST, PRECISIONS, is_block_linear, precision_of
from kandinsky.model.quantised import FLOAT8

CPU = torch.device("cpu")


def test_each_name_has_its_value():
    assert {name: precision_of(name).name for name in NAMES} == {name: name for name in PRECISIONS}
    for name in ("half", None):
        with pytest.raises(ValueError, match=rf"precision='?{name}'?: allowed are 'exact', 'fast'"):
            precision_of(name)


def test_only_the_exact_one_keeps_the_weights():
    assert EXACT.is_exact
    assert not FAST.is_exact
    weight, scale = FAST.quantise(torch.randn(4, 8))
    assert (weight.dtype, weight.shape, scale.shape) == (FLOAT8, (4, 8), (1, 4))
    block = random_dit(SMALL_DIT, torch.Generator().manual_seed(0)).blocks[0]
    parts = list(block.modules())
    EXACT.convert_block_(block)
    assert all(one is other for one, other in zip(parts, block.modules(), strict=True))


def test_operations_that_go_with_them():
    assert EXACT.operations("auto", CPU) is PLAIN
    with pytest.raises(ValueError, match="precision='fast' needs Triton's kernels"):
        FAST.operations("auto", CPU)


def test_attention_that_goes_with_them():
    """Exact is never lossy."""
    assert EXACT.attention is None
    assert FAST.attention is BACKENDS["float8"]


def test_four_linears_of_each_block_are_what_it_is_about():
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(0))
    found = [name for name in dit.state_dict() if is_block_linear(name)]
    assert len(found) == 4 * len(dit.blocks)
    assert found[:4] == [
        "transformer_blocks.0.0.self_attention.to_query_key_value.weight",
        "transformer_blocks.0.0.self_attention.output_layer.weight",
        "transformer_blocks.0.0.feed_forward.in_layer.weight",
        "transformer_blocks.0.0.feed_forward.out_layer.weight",
    ]


@pytest.mark.gpu
def test_fast_precision_is_near_exact():
    exact, fast = (
        get_T2V_pipeline("cuda", cache_dir=TINY, precision=precision, progress=False) for precision in ("exact", "fast")
    )
    frames = [pipe("a cat", time_length=0, width=512, height=512, seed=1)[0] for pipe in (exact, fast)]
    first, second = (torch.frombuffer(bytearray(frame.tobytes()), dtype=torch.uint8).float() for frame in frames)
    assert not torch.equal(first, second)
    assert (first - second).abs().mean() < 20
