"""Our VAE decoder against diffusers' own, in float32 on the CPU with tiny random weights."""

import pytest
from vae_helpers import RATIOS, latents_of, our_frames, relative_error, their_frames, tiny_autoencoder

from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.decoder_weights import DecoderConfig


@pytest.fixture(scope="module")
def autoencoder():
    return tiny_autoencoder()


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7])
def test_equals_diffusers(autoencoder, frames):
    z = latents_of(frames)
    ours = our_frames(CausalDecoder.from_diffusers(autoencoder), z)
    theirs = their_frames(autoencoder, z)
    assert ours.shape == theirs.shape == (1 if frames == 1 else 4 * frames - 3 * (frames % 2), 32, 48, 3)
    assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("ratio", RATIOS)
def test_other_architectures(ratio):
    """Channels that change between levels, so shortcuts; other temporal ratios; the config's norm_eps is not used."""
    autoencoder = tiny_autoencoder(
        block_out_channels=(16, 32, 32, 64), temporal_compression_ratio=ratio, norm_num_groups=8, norm_eps=1e-3
    )
    z = latents_of(5)
    ours = our_frames(CausalDecoder.from_diffusers(autoencoder), z)
    assert relative_error(ours, their_frames(autoencoder, z)) < 1e-5


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_small_windows_change_nothing(autoencoder, frames):
    """Filling windows frame by frame is exact, paired and single first frames included."""
    z = latents_of(frames)
    decoder = CausalDecoder.from_diffusers(autoencoder)
    whole = our_frames(decoder, z)
    assert relative_error(our_frames(decoder, z, max_bytes=1), whole) < 1e-6
    assert relative_error(our_frames(decoder, z, memory_saving=True), whole) < 1e-6


def test_bfloat16_rounds_no_more_than_diffusers(autoencoder):
    z = latents_of(3)[:, :2, :3].bfloat16()  # in bfloat16 a CPU convolves 20 times slower
    exact = their_frames(autoencoder, z.float())
    half = tiny_autoencoder().bfloat16()
    ours = our_frames(CausalDecoder.from_diffusers(half), z)
    assert relative_error(ours, exact) < 1.1 * relative_error(their_frames(half, z), exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_post_quant_conv": True}, "use_post_quant_conv=True; supported: False"),
        ({"act_fn": "gelu"}, "'gelu'; supported: silu"),
        ({"temporal_compression_ratio": 3}, "is 3; supported: powers of 2"),
    ],
)
def test_what_is_not_supported_is_named(autoencoder, change, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig.from_mapping({**autoencoder.config, **change})
