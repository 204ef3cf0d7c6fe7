"""What a call computes once: it serves every step, in any order, and is not changed by them."""

import dataclasses

import pytest
import torch
from helpers import relative_error

TIMES = torch.tensor([[999], [499]])


@pytest.fixture(scope="module")
def inputs():
    """Latents `[2, 4, 6, 16]` and text `[5, 64]`."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 4, 6, 16, generator=generator), torch.randn(5, 64, generator=generator)


@torch.no_grad()
def test_prepared_steps_equal_forward(pipe, inputs):
    visual, text = inputs
    context = pipe.dit.prepare(text, pipe.dit.modulation(TIMES), pipe.dit.layout((2, 4, 6), 5))
    for index in (1, 0):
        # Not bit-equal: the modulation of two timesteps is one matrix product instead of two.
        assert relative_error(pipe.dit.step(visual, context, index), pipe.dit(visual, text, TIMES[index])) < 1e-6


@torch.no_grad()
def test_steps_do_not_change_the_context(pipe, inputs):
    visual, text = inputs
    context = pipe.dit.prepare(text, pipe.dit.modulation(TIMES), pipe.dit.layout((2, 4, 6), 5))
    first = pipe.dit.step(visual, context, 0)
    pipe.dit.step(visual + 1, context, 1)
    assert torch.equal(pipe.dit.step(visual, context, 0), first)
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.rope = None


@torch.no_grad()
def test_shapes(pipe, inputs):
    config = pipe.dit.config
    table = pipe.dit.modulation(TIMES)
    assert table.blocks.shape == (2, 2 * config.num_blocks, 2, 6, config.model_dim)
    assert table.out.shape == (2, 1, 2, config.model_dim)
    context = pipe.dit.prepare(inputs[1], table, pipe.dit.layout((2, 4, 6), 5))
    assert [text.shape for text in context.text] == [(5, config.model_dim)]
    assert context.rope.shape == (2 * 2 * 3 + 5, config.head_dim // 2, 2)
    assert (context.segments.lengths, context.visual_segments.lengths) == ((12, 5), (12,))
