"""The velocity of a batch is the model's with packed clips."""

import pytest
import torch
from model_helpers import SMALL_DIT

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.model.layout import TokenLayout
from kandinsky.training.velocity import velocity


@pytest.fixture(scope="module")
def dit():
    return random_dit(SMALL_DIT, torch.Generator().manual_seed(0), dtype=torch.float32).requires_grad_(True)


@pytest.fixture(scope="module", params=[7, 24], ids=["text", "as much text as picture"])
def call(request):
    """Three clips of 24 visual tokens."""
    generator = torch.Generator().manual_seed(1)
    visual = torch.randn(3, 2, 8, 6, 16, generator=generator)
    return visual, torch.randn(3, request.param, 64, generator=generator), torch.tensor([999, 3, 500])


@torch.no_grad()
def test_batch_equals_the_model_with_packed_clips(dit, call):
    visual, text, time = call
    layout = TokenLayout(dit.layout((2, 8, 6), text.shape[1]).clips * 3)
    packed = dit(visual.flatten(0, 1), text.flatten(0, 1), time, layout)
    torch.testing.assert_close(velocity(dit, *call).flatten(0, 1), packed)


def test_computing_blocks_again_changes_no_gradient(dit, call):
    found = []
    for checkpointing in (False, True):
        loss = velocity(dit, *call, checkpointing=checkpointing).square().mean()
        found.append((loss, *torch.autograd.grad(loss, list(dit.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
