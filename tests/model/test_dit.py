"""The DiT against the published implementation's outputs, and its own consistency."""

import pytest
import torch
from helpers import TINY, relative_error
from model_helpers import SMALL_DIT
from safetensors.torch import load_file

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.factory import get_T2V_pipeline
from kandinsky.model.attention import Attention, torch_sdpa
from kandinsky.model.bounded import MAX_LOGIT, Logits, largest
from kandinsky.model.layout import Clip, TokenLayout

CASES = ("single", "image", "packed", "grouped")


def golden_inputs(golden, case):
    """Inputs, layout and output of one golden case; the files give clip borders as cumulated lengths."""
    prefix = case + "."
    tensors = load_file(golden / "dit_fp32.safetensors")
    tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    frames, text = (tensors[name].tolist() for name in ("visual_cu_seqlens", "text_cu_seqlens"))
    rows, columns = (size // 2 for size in tensors["visual"].shape[1:3])
    clips = tuple(
        Clip((frames[i + 1] - frames[i], rows, columns), text[i + 1] - text[i]) for i in range(len(frames) - 1)
    )
    layout = TokenLayout(clips, tuple(tensors["num_groups"].tolist()), tuple(tensors["scale_factor"].tolist()))
    return tensors, layout


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_equals_published(golden_pipe, golden, case):
    tensors, layout = golden_inputs(golden, case)
    output = golden_pipe.dit(tensors["visual"], tensors["text"], tensors["time"], layout)
    assert relative_error(output, tensors["output"]) < 1e-5


@torch.no_grad()
def test_packed_clips_equal_clips_alone(pipe):
    generator = torch.Generator().manual_seed(1)
    visuals = [torch.randn(frames, 6, 10, 16, generator=generator) for frames in (3, 1, 2)]
    texts = [torch.randn(tokens, 64, generator=generator) for tokens in (7, 1, 12)]
    times = torch.tensor([999, 749, 249])
    clips = [Clip((len(visual), 3, 5), len(text)) for visual, text in zip(visuals, texts, strict=True)]
    packed = pipe.dit(torch.cat(visuals), torch.cat(texts), times, TokenLayout(tuple(clips)))
    alone = [pipe.dit(v, t, times[i : i + 1]) for i, (v, t) in enumerate(zip(visuals, texts, strict=True))]
    assert relative_error(packed, torch.cat(alone)) < 1e-5


@torch.no_grad()
def test_groups_change_the_result_and_one_group_does_not(pipe):
    generator = torch.Generator().manual_seed(3)
    visual, text = torch.randn(2, 8, 8, 16, generator=generator), torch.randn(5, 64, generator=generator)
    time, clip = torch.tensor([499]), Clip((2, 4, 4), 5)
    full = pipe.dit(visual, text, time)
    assert torch.equal(pipe.dit(visual, text, time, TokenLayout((clip,), (1, 1, 1))), full)
    assert relative_error(pipe.dit(visual, text, time, TokenLayout((clip,), (1, 2, 2))), full) > 1e-3


def test_gradients_reach_every_parameter():
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(0), dtype=torch.float32).requires_grad_(True)
    dit(torch.randn(2, 4, 4, 16), torch.randn(3, 64), torch.tensor([749])).square().mean().backward()
    assert not [name for name, parameter in dit.named_parameters() if parameter.grad is None]


def test_blocks_are_local_and_global_in_turn():
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(0))
    assert [block.dilated for block in dit.blocks] == [False, True, False, True]


def test_one_block_with_large_norms_takes_the_slower_kernel_alone():
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(0))
    worst = dit.blocks[2].self_attention
    worst.query_norm.weight.mul_(50)
    assert largest(dit.logits()) == Logits.of(worst.query_norm, worst.key_norm)
    taken = []

    def recorded(size):
        return lambda qkv: taken.append(size) or torch_sdpa(qkv)

    dit.attention = Attention(
        "two", recorded("any"), fit=lambda logits: (recorded("small" if logits.bound <= MAX_LOGIT else "any"), None)
    )
    dit(torch.randn(2, 4, 4, 16).bfloat16(), torch.randn(3, 64).bfloat16(), torch.tensor([749]))
    assert taken == ["small", "small", "any", "small"]


@pytest.mark.gpu
def test_steps_wait_for_nothing():
    """A step must not synchronise: the driver reports every wait as an error meanwhile."""
    pipe = get_T2V_pipeline("cuda", cache_dir=TINY, progress=False)
    text = pipe.text_encoder("a cat")
    with torch.inference_mode():
        context = pipe.dit.prepare(text, pipe.parts.modulation, pipe.dit.layout((3, 32, 32), len(text)))
        latents = torch.randn(3, 32, 32, 16, device="cuda", dtype=torch.bfloat16)
        expected = pipe.dit.step(latents, context, 1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            velocity = pipe.dit.step(latents, context, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(velocity, expected)
