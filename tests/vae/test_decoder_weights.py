"""The decoder's weights rearranged: each kernel is the published one of what it stands for."""

import pytest
import torch
from torch.nn import functional as F

from kandinsky.vae.decoder_weights import DecoderConfig, pair_kernels, patch_kernel, quarter_kernels


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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


@pytest.mark.parametrize(("ratio", "doublings"), [(1, 0), (2, 1), (4, 2), (8, 3)])
def test_doublings_of_time(autoencoder, ratio, doublings):
    config = DecoderConfig.from_mapping({**autoencoder.config, "temporal_compression_ratio": ratio})
    assert config.doublings == doublings
    assert (config.block_out_channels, config.scaling_factor) == ((16, 16, 16, 16), 0.7)


def test_patches_are_neighbouring_results():
    weight, x = random(3, 2, 3, 3, 3), random(1, 2, 3, 8, 8, seed=1)
    expected = F.conv3d(x, weight, padding=(0, 1, 1))
    found = F.conv3d(x, patch_kernel(weight, 4), padding=(0, 1, 1), stride=(1, 4, 4))
    pixels = found.unflatten(1, (4, 4, 3)).permute(0, 3, 4, 5, 1, 6, 2)  # [1, O, T, H / 4, 4, W / 4, 4]
    torch.testing.assert_close(pixels.flatten(5).flatten(3, 4), expected, atol=1e-4, rtol=1e-4)
    assert patch_kernel(weight, 1) is weight


def test_pairs_are_frames_shown_twice():
    weight, x = random(3, 2, 3, 3, 3), random(1, 2, 4, 5, 5, seed=1)
    even, odd = pair_kernels(weight)
    expected = F.conv3d(x.repeat_interleave(2, dim=2), weight, padding=(0, 1, 1))  # from frame 2 of the eight on
    torch.testing.assert_close(F.conv3d(x, even, padding=(0, 1, 1)), expected[:, :, 0::2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(F.conv3d(x, odd, padding=(0, 1, 1)), expected[:, :, 1::2], atol=1e-4, rtol=1e-4)


def test_quarters_are_pixels_shown_four_times():
    weight, x = random(3, 2, 3, 3), random(1, 2, 5, 4, seed=1)
    whole = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    for quarter, kernel in enumerate(quarter_kernels(weight)):
        down, right = divmod(quarter, 2)
        found = F.conv2d(x, kernel, padding=1)[..., down : down + 5, right : right + 4]
        torch.testing.assert_close(found, whole[..., down::2, right::2], atol=1e-4, rtol=1e-4)


def test_sums_of_taps_are_rounded_once():
    weight = random(3, 2, 3, 3, 3).bfloat16()
    old, middle, new = weight.double().unbind(2)
    even, odd = pair_kernels(weight)
    assert torch.equal(even, torch.stack((old + middle, new), 2).bfloat16())
    assert torch.equal(odd, torch.stack((old, middle + new), 2).bfloat16())


def test_every_convolution_has_a_slot_and_its_scale(decoder):
    weights = decoder.weights
    assert [conv.slot for conv in weights.causal_convs] == list(range(len(weights.causal_convs)))
    assert weights.causal_convs[0] is weights.conv_in
    assert weights.causal_convs[-1] is weights.conv_out
    assert [level.resnets[-1].conv2.scale for level in weights.levels] == [1, 2, 4, 8]
    assert [level.doubles_time for level in weights.levels] == [True, True, False, False]
    assert [len(level.upsample) for level in weights.levels] == [4, 4, 4, 0]
    paired = [len(level.resnets[0].conv1.kernels) for level in weights.levels]
    assert paired == [1, 2, 2, 1]
    assert (weights.conv_out.stride, weights.conv_out.out_channels) == (4, 48)
