"""Which part of the weights a rank reads, and sums over ranks; one process's velocity is in `test_apply`."""

import pytest
import torch
from rank_processes import CPU, FOUR_HEADS, linear_inputs
from torch import nn

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.tensor import TENSOR_PLAN, SummedLinear, parallelise_, shard_for


def parts_of(dit_file, name, size):
    """What each of `size` ranks reads of a tensor, and the whole tensor."""
    checkpoint = open_checkpoint(dit_file)
    regions = [shard_for(Ranks(rank, size))(name, checkpoint.shapes[name]) for rank in range(size)]
    return [checkpoint.tensor(name, CPU, region) for region in regions], checkpoint.tensor(name, CPU)


@pytest.mark.parametrize("size", [2, 4])
def test_heads_make_the_whole(dit_file, size):
    """Query, key and value of a head are with one rank."""
    for leaf in ("weight", "bias"):
        name = f"transformer_blocks.0.0.self_attention.to_query_key_value.{leaf}"
        parts, whole = parts_of(dit_file, name, size)
        assert torch.equal(torch.cat([part.unflatten(0, (3, -1)) for part in parts], dim=1).flatten(0, 1), whole)


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("transformer_blocks.0.1.self_attention.output_layer.weight", 1),
        ("transformer_blocks.1.0.feed_forward.in_layer.weight", 0),
        ("transformer_blocks.1.0.feed_forward.in_layer.bias", 0),
        ("transformer_blocks.0.1.feed_forward.out_layer.weight", 1),
    ],
)
@pytest.mark.parametrize("size", [2, 4])
def test_parts_make_the_whole(dit_file, name, axis, size):
    parts, whole = parts_of(dit_file, name, size)
    assert torch.equal(torch.cat(parts, dim=axis), whole)


@pytest.mark.parametrize(
    "name",
    [
        "transformer_blocks.0.0.feed_forward.out_layer.bias",
        "transformer_blocks.0.0.self_attention.query_norm.weight",
        "time_embeddings.in_layer.weight",
        "out_layer.out_layer.weight",
    ],
)
def test_everything_else_is_read_by_all(name):
    assert shard_for(Ranks(0, 2))(name, (8, 8)) is None


def test_what_is_cut_along_its_input_is_summed():
    dit = random_dit(FOUR_HEADS, torch.Generator().manual_seed(0))
    parallelise_(dit, Messenger(Ranks(1, 2), CPU))
    for block in dit.blocks:
        summed = {name for name, part in block.named_modules() if isinstance(part, SummedLinear)}
        assert summed == {name for name, split in TENSOR_PLAN.items() if split.axis == 1}
        assert isinstance(block.self_attention.to_query_key_value, nn.Linear)


def test_a_bias_is_added_once():
    linears = [SummedLinear(nn.Linear(4, 3), Messenger(Ranks(rank, 2), CPU)).linear for rank in range(2)]
    assert [linear.bias is None for linear in linears] == [False, True]


def test_sums_in_pieces(processes):
    """Parts are 1, 2, ... and one more each turn."""
    size = processes.size
    expected = [[sum(range(1 + turn, 1 + turn + size))] for turn in range(3)]
    for rank in processes.of("sums"):
        assert [total.shape for total in rank["sums"]] == [(101, 8)] * 3
        assert [total.unique().tolist() for total in rank["sums"]] == expected


def test_a_summed_linear_is_the_whole_one(processes):
    """Of so many rows that one piece is summed while the next is multiplied."""
    x, linear = linear_inputs()
    expected = linear(x)
    for rank in processes.of("sums"):
        torch.testing.assert_close(rank["linear"], expected, atol=1e-5, rtol=1e-5)
