"""How tokens and heads are cut for sequence parallelism; that it gives one process's velocity is in `test_apply`."""

import numpy as np
import pytest
import torch
from rank_processes import FOUR_HEADS, LAYOUT
from torch import nn

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.sequence import LocalContext, SequenceParallelDiT, UlyssesAttention, parallelise_

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dit():
    return random_dit(FOUR_HEADS, torch.Generator().manual_seed(0), dtype=torch.float32)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_local_rows_cover_every_segment(dit, size):
    """A stream of two clips, cut where no segment ends."""
    whole = dit.prepare(torch.randn(9, 64), dit.modulation(torch.tensor([[1, 2]])), LAYOUT)
    contexts = [LocalContext.of(whole, Ranks(rank, size)) for rank in range(size)]
    lengths = np.array([local.segments.lengths for local in contexts])
    assert lengths.sum(0).tolist() == [6, 5, 12, 4]
    assert torch.equal(torch.cat([local.segments.index for local in contexts]), whole.segments.index)
    assert torch.equal(torch.cat([local.rope for local in contexts]), whole.rope)
    assert contexts[0].visual_counts == lengths[:, ::2].sum(1).tolist()
    for rank, local in enumerate(contexts):
        assert local.rows(rank) == slice(rank * 27 // size, (rank + 1) * 27 // size)
        assert local.visual_segments.lengths == tuple(lengths[rank, ::2])


def test_visual_tokens_of_each_rank(dit):
    whole = dit.prepare(torch.randn(9, 64), dit.modulation(torch.tensor([[1, 2]])), LAYOUT)
    assert LocalContext.of(whole, Ranks(0, 4)).visual_counts == [6, 2, 7, 3]


@pytest.mark.parametrize("size", [2, 4])
def test_each_projection_makes_some_heads(dit, size):
    """Together they are the whole one."""
    attention = dit.blocks[0].self_attention
    cut = UlyssesAttention(attention, Messenger(Ranks(1, size), CPU))
    x = torch.randn(5, 64)
    parts = [part(x).unflatten(-1, (3, cut.heads, 16)) for part in cut.to_query_key_value]
    assert cut.heads == 4 // size
    torch.testing.assert_close(torch.cat(parts, 2), attention.to_query_key_value(x).unflatten(-1, (3, 4, 16)))


def test_attention_alone_is_replaced():
    dit = SequenceParallelDiT(FOUR_HEADS, Ranks(0, 2))
    before = {name for name, part in dit.named_modules() if isinstance(part, nn.LayerNorm)}
    norms = [block.self_attention.query_norm for block in dit.blocks]
    parallelise_(dit, Messenger(Ranks(0, 2), CPU))
    assert all(isinstance(block.self_attention, UlyssesAttention) for block in dit.blocks)
    assert all(block.self_attention.query_norm is norm for block, norm in zip(dit.blocks, norms, strict=True))
    assert {name for name, part in dit.named_modules() if isinstance(part, nn.LayerNorm)} == before
