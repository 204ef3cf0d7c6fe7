"""Sizes from shapes against modules that are really built, and the counting of what is alive."""

import dataclasses

import pytest
import torch
from helpers import SMALL, TINY
from torch import nn

from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.random_weights import SIZES
from kandinsky.config import PUBLISHED_DIT
from kandinsky.memory.footprint import LIBRARY_BYTES, META, Live, dit_component, peak_of, t5_component, vae_component
from kandinsky.memory.modes import streamed_tensors
from kandinsky.vae.decoder_weights import DecoderConfig
from kandinsky.vae.shapes import decoder_shapes
from kandinsky.video_shape import VideoShape

BF16 = torch.bfloat16
SHAPE = VideoShape.from_request(1, 96, 64, model_set=SMALL)


def test_live_counts_what_is_alive():
    def run():
        a = torch.empty(100, dtype=torch.uint8, device=META)
        b = a.view(10, 10)
        c = b + 1  # two alive
        del a, b
        d = torch.cat((c, c))  # 100 + 200
        assert d.nbytes == 200

    assert peak_of(run) == 300


def test_live_leaves_out_other_devices_and_ends_with_its_block():
    with Live() as live:
        torch.empty(100)
    torch.empty(100, device=META)
    assert live.peak == 0


def test_dit_weights_are_those_of_the_module(pipe):
    config = dit_config(open_checkpoint(TINY / "kandinsky4_distil_512.pt"))
    found = dit_component(config, SHAPE, text_tokens=224, dtype=torch.float32, quantise=False)
    assert list(found.blocks) == [sum(x.nbytes for x in streamed_tensors(block)) for block in pipe.dit.blocks]
    rest = sum(p.nbytes for name, p in pipe.dit.named_parameters() if not name.startswith("transformer_blocks"))
    assert found.kept == rest + pipe.parts.modulation.blocks.nbytes
    assert found.loading == sum(x.nbytes for x in pipe.dit.parameters()) - rest - sum(found.blocks)


def test_float8_halves_the_blocks():
    exact, fast = (
        dit_component(PUBLISHED_DIT, SHAPE, text_tokens=224, dtype=BF16, quantise=quantise)
        for quantise in (False, True)
    )
    assert 0.5 < sum(fast.blocks) / sum(exact.blocks) < 0.502
    assert fast.working < exact.working
    file = dit_component(PUBLISHED_DIT, SHAPE, text_tokens=224, dtype=BF16, quantise=True, quantised_file=True)
    assert file.loading == exact.loading == fast.loading - sum(exact.blocks) + sum(fast.blocks)


def test_dit_needs_thirteen_streams_at_its_peak():
    """Two of the block before, three in this one, and the feed-forward's hidden layer before and after GELU."""
    shape = VideoShape.from_request(12, 672, 384)
    found = dit_component(PUBLISHED_DIT, shape, text_tokens=224, dtype=BF16, quantise=False)
    stream = (25_200 + 224) * PUBLISHED_DIT.model_dim * 2
    assert 13 < (found.working - LIBRARY_BYTES) / stream < 13.5


def test_more_tokens_need_more():
    sizes = [
        dit_component(PUBLISHED_DIT, VideoShape.from_request(s, 672, 384), text_tokens=224, dtype=BF16, quantise=False)
        for s in (1, 4, 12)
    ]
    assert sizes[0].working < sizes[1].working < sizes[2].working
    assert len({component.blocks for component in sizes}) == 1


def test_t5_weights_are_those_of_the_module(pipe):
    shapes = open_checkpoint(TINY / "text_encoder").shapes
    found = t5_component(shapes, text_tokens=224, dtype=torch.float32)
    model = pipe.text_encoder.model
    weights = sum(parameter.nbytes for parameter in model.encoder.parameters())
    assert sum(found.blocks) + found.kept == weights - model.shared.weight.nbytes
    assert len(found.blocks) == len(model.encoder.block)
    smaller = t5_component(shapes, text_tokens=224, dtype=torch.float32, int8=True)
    assert sum(smaller.blocks) < sum(found.blocks)


def test_vae_halos_may_stand_on_the_host():
    config = {**SIZES["full"].vae, "latent_channels": 16, "out_channels": 3, "scaling_factor": 0.7}
    config["temporal_compression_ratio"] = 4
    shapes = {f"decoder.{name}": size for name, size in decoder_shapes(DecoderConfig.from_mapping(config)).items()}
    shape = VideoShape.from_request(12, 672, 384)
    fast, saving = (vae_component(config, shapes, shape, dtype=BF16, memory_saving=s) for s in (False, True))
    assert fast.working < 4.3e9
    assert saving.working < 3.1e9
    longer = dataclasses.replace(shape, latent_frames=101)
    assert vae_component(config, shapes, longer, dtype=BF16, memory_saving=False).working == fast.working


@pytest.mark.gpu
def test_prediction_on_a_gpu():
    """A block of full width: within a tenth of what the allocator counts."""
    from kandinsky.checkpoint.random_weights import random_dit
    from kandinsky.model.attention import BACKENDS
    from kandinsky.model.operations import fused
    from kandinsky.sampler import Schedule, sample

    config = dataclasses.replace(PUBLISHED_DIT, num_blocks=1)
    cuda = torch.device("cuda", 0)
    dit = random_dit(config, torch.Generator(cuda).manual_seed(0))
    dit.operations, dit.attention = fused(), BACKENDS["bounded"]
    shape = VideoShape.from_request(12, 672, 384)
    schedule = Schedule((999, 749), (0.0, 0.5))
    with torch.inference_mode():
        modulation = dit.modulation(torch.tensor(schedule.timesteps, device=cuda)[:, None])
        text = torch.randn(224, config.in_text_dim, device=cuda, dtype=BF16)
        context = dit.prepare(text, modulation, dit.layout(shape.latent_grid, 224))
        for _ in range(2):  # the first one compiles
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            generator = torch.Generator().manual_seed(0)
            velocity = lambda x, index: dit.step(x.to(BF16), context, index)  # noqa: E731
            sample(velocity, (*shape.latent_grid, 16), schedule, generator=generator, device=cuda)
            measured = torch.cuda.max_memory_allocated() - before
    found = dit_component(config, shape, text_tokens=224, dtype=BF16, quantise=False).working
    assert isinstance(dit, nn.Module)
    print(f"predicted {found / 1e9:.3f} GB, measured {measured / 1e9:.3f} GB")
    assert abs(found / measured - 1) < 0.1
