"""LADD's discriminator: features are the teacher's own streams, and heads begin as what the paper says."""

import pytest
import torch
import torch.nn.functional as F
from model_helpers import SMALL_DIT

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.model.attention import TORCH
from kandinsky.model.operations import norm_rope
from kandinsky.training.discriminator import Features, Head, Heads
from kandinsky.training.velocity import velocity


@pytest.fixture(scope="module")
def teacher():
    return random_dit(SMALL_DIT, torch.Generator().manual_seed(0), dtype=torch.float32)


@pytest.fixture(scope="module")
def call():
    """Two clips of eight visual tokens with three of text."""
    generator = torch.Generator().manual_seed(1)
    visual, text = torch.randn(2, 2, 4, 4, 16, generator=generator), torch.randn(2, 3, 64, generator=generator)
    return visual, text, torch.tensor([999, 3])


@torch.no_grad()
def test_features_are_the_streams_that_the_blocks_return(teacher, call):
    """After each global block, the pending residual added; the last one's give the teacher's velocity."""
    streams, time_embed, context = Features(teacher)(*call)
    assert [tuple(stream.shape) for stream in streams] == [(2 * (8 + 3), 32)] * SMALL_DIT.num_blocks
    assert torch.equal(time_embed, teacher.time_embeddings(call[2]))
    assert context.layout.clips[0].visual_tokens == 8
    visual = streams[-1].unflatten(0, (2, -1))[:, :8]
    shift, scale = teacher.out_layer.modulation(time_embed)[:, None].unbind(2)
    normed = F.layer_norm(visual, (32,), teacher.out_layer.norm.weight, teacher.out_layer.norm.bias, eps=1e-5)
    patches = teacher.out_layer.out_layer(normed * (1 + scale) + shift)
    found = torch.stack([teacher.out_layer.unpatch(clip, (2, 2, 2)) for clip in patches])
    torch.testing.assert_close(found, velocity(teacher, *call))


@torch.no_grad()
def test_the_teacher_is_not_changed(teacher, call):
    before = velocity(teacher, *call)
    features = Features(teacher)
    features(*call)
    assert torch.equal(velocity(teacher, *call), before)
    assert features._outputs is None  # nothing is kept of calls that are not its own


def test_gradients_reach_the_latents_and_recomputing_changes_nothing(teacher, call):
    visual, text, time = call
    teacher.requires_grad_(False)
    features, found = Features(teacher), []
    for checkpointing in (False, True):
        noisy = visual.clone().requires_grad_(True)
        streams = features(noisy, text, time, checkpointing=checkpointing)[0]
        (gradient,) = torch.autograd.grad(sum(stream.square().sum() for stream in streams), noisy)
        found.append((gradient, *streams))
    assert found[0][0].abs().sum() > 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_head_begins_without_modulation_and_with_an_open_gate(teacher, call):
    streams, time_embed, context = Features(teacher)(*call)
    head = Head(SMALL_DIT)
    found = head(streams[0], time_embed, context)
    assert found.shape == (2, 8)
    clips = head.norm(streams[0]).unflatten(0, (2, -1))
    attended = head.attention(clips.flatten(0, 1), context, norm_rope, attention=TORCH, dilated=False)
    gated = (streams[0] + attended).unflatten(0, (2, -1))[:, :8]
    torch.testing.assert_close(found, head.score(gated)[..., 0])
    torch.testing.assert_close(head(streams[0], time_embed + 1, context), found)


@torch.no_grad()
def test_there_is_a_head_for_each_global_block(teacher, call):
    heads = Heads(SMALL_DIT)
    streams, time_embed, context = Features(teacher)(*call)
    scores = heads(streams, time_embed, context)
    assert len(scores) == SMALL_DIT.num_blocks
    for score, head, stream in zip(scores, heads, streams, strict=True):
        assert torch.equal(score, head(stream, time_embed, context))
