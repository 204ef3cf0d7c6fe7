"""The DiT against the published implementation's outputs, and its own consistency."""

import pytest
import torch
from helpers import relative_error
from safetensors.torch import load_file

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
def test_prepared_steps_equal_forward(pipe):
    generator = torch.Generator().manual_seed(2)
    visual, text = torch.randn(2, 4, 6, 16, generator=generator), torch.randn(5, 64, generator=generator)
    times = torch.tensor([[999], [499]])
    context = pipe.dit.prepare(text, pipe.dit.modulation(times), pipe.dit.layout((2, 4, 6), 5))
    for index in range(2):
        # Not bit-equal: the modulation of two timesteps is one matrix product instead of two.
        assert relative_error(pipe.dit.step(visual, context, index), pipe.dit(visual, text, times[index])) < 1e-6


@torch.no_grad()
def test_one_group_of_the_grouped_path_equals_full_attention(pipe):
    """With as many rows of groups as make single windows differ, grouping must change the result; with one, not."""
    generator = torch.Generator().manual_seed(3)
    visual, text = torch.randn(2, 8, 8, 16, generator=generator), torch.randn(5, 64, generator=generator)
    time, clip = torch.tensor([499]), Clip((2, 4, 4), 5)
    full = pipe.dit(visual, text, time)
    assert torch.equal(pipe.dit(visual, text, time, TokenLayout((clip,), (1, 1, 1))), full)
    assert relative_error(pipe.dit(visual, text, time, TokenLayout((clip,), (1, 2, 2))), full) > 1e-3


def test_gradients_reach_every_parameter(pipe):
    dit = pipe.dit
    dit.requires_grad_(True)
    try:
        dit(torch.randn(2, 4, 4, 16), torch.randn(3, 64), torch.tensor([749])).square().mean().backward()
        without = [name for name, parameter in dit.named_parameters() if parameter.grad is None]
    finally:
        dit.zero_grad()
        dit.requires_grad_(False)
    assert not without


def test_grid_must_divide_into_groups():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) is not a multiple of num_groups=\(1, 2, 2\)"):
        TokenLayout((Clip((2, 3, 4), 5),), (1, 2, 2))


def test_grid_beyond_the_rope_table(pipe):
    with pytest.raises(ValueError, match="128 positions"):
        pipe.dit.rope_embeddings(TokenLayout((Clip((129, 1, 1), 5),)))
