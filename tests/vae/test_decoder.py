"""Our VAE decoder against diffusers' own, in float32 on the CPU with tiny random weights."""

import pytest
import torch
from helpers import relative_error
from vae_helpers import RATIOS, latents_of, our_frames, smallest_autoencoder, their_frames

from kandinsky.vae.decoder import CausalDecoder, best_ops
from kandinsky.vae.norm import PlainOps


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7])
def test_equals_diffusers(decoder, theirs, frames):
    ours = our_frames(decoder, latents_of(frames, 2, 3))
    assert ours.shape == theirs(frames).shape == (1 if frames == 1 else 4 * frames - 3 * (frames % 2), 16, 24, 3)
    assert relative_error(ours, theirs(frames)) < 1e-5


@pytest.mark.parametrize("ratio", RATIOS)
def test_other_architectures(ratio):
    """Channels that change between levels, so shortcuts; other temporal ratios; the config's norm_eps is not used."""
    autoencoder = smallest_autoencoder(
        block_out_channels=(16, 32, 32, 64), temporal_compression_ratio=ratio, norm_eps=1e-3
    )
    z = latents_of(5, 2, 3)
    ours = our_frames(CausalDecoder.from_diffusers(autoencoder), z)
    assert relative_error(ours, their_frames(autoencoder, z)) < 1e-5


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_small_windows_change_nothing(decoder, frames):
    """Filling windows frame by frame is exact, paired and single first frames included."""
    z = latents_of(frames, 2, 3)
    whole = our_frames(decoder, z)
    assert relative_error(our_frames(decoder, z, max_bytes=1), whole) < 1e-6
    assert relative_error(our_frames(decoder, z, memory_saving=True), whole) < 1e-6


def test_bfloat16_rounds_no_more_than_diffusers(theirs):
    z = latents_of(3, 2, 3)
    half = smallest_autoencoder().bfloat16()
    ours = our_frames(CausalDecoder.from_diffusers(half), z.bfloat16())
    assert relative_error(ours, theirs(3)) < 1.1 * relative_error(their_frames(half, z.bfloat16()), theirs(3))


def test_clips_do_not_know_of_each_other(decoder):
    """A decoder holds no state of a clip: two may be under way at once."""
    first, second = latents_of(4, 2, 3), latents_of(4, 2, 3) + 1
    alone = our_frames(decoder, first)
    one, other = decoder.open_clip(first), decoder.open_clip(second)
    parts = []
    for start in (0, 2):
        parts.append(one.decode_chunk(first[start : start + 2]))
        other.decode_chunk(second[start : start + 2])
    assert torch.equal(torch.cat(parts), alone)


def test_a_cpu_runs_the_plain_operations(decoder):
    assert best_ops(torch.device("cpu"), decoder.config) == PlainOps()
    assert decoder.dtype == torch.float32
    assert decoder.device == torch.device("cpu")
