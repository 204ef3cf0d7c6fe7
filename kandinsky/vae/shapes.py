"""Names and shapes of the decoder's tensors in a checkpoint of diffusers' `AutoencoderKLCogVideoX`.

They are known here so that a checkpoint can be checked, and decoded with, without importing diffusers.
"""

from collections.abc import Iterator

from kandinsky.vae.decoder_weights import DecoderConfig

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def decoder_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Of a decoder with these sizes, without the leading `decoder.`."""
    return dict(_decoder(config))


def _decoder(config: DecoderConfig) -> Shapes:
    widths, latent = config.block_out_channels[::-1], config.latent_channels
    yield from _layer("conv_in.conv", widths[0], latent, 3, 3, 3)
    for index in range(2):
        yield from _resnet(f"mid_block.resnets.{index}", widths[0], widths[0], latent)
    before = widths[0]
    for level, width in enumerate(widths):
        for index in range(config.layers_per_block + 1):
            yield from _resnet(f"up_blocks.{level}.resnets.{index}", before, width, latent)
            before = width
        if level < len(widths) - 1:
            yield from _layer(f"up_blocks.{level}.upsamplers.0.conv", width, width, 3, 3)
    yield from _norm("norm_out", before, latent)
    yield from _layer("conv_out.conv", config.out_channels, before, 3, 3, 3)


def _resnet(name: str, before: int, after: int, latent: int) -> Shapes:
    yield from _norm(f"{name}.norm1", before, latent)
    yield from _norm(f"{name}.norm2", after, latent)
    yield from _layer(f"{name}.conv1.conv", after, before, 3, 3, 3)
    yield from _layer(f"{name}.conv2.conv", after, after, 3, 3, 3)
    if before != after:
        yield from _layer(f"{name}.conv_shortcut", after, before, 1, 1, 1)


def _norm(name: str, channels: int, latent: int) -> Shapes:
    yield from _layer(f"{name}.norm_layer", channels)
    for part in ("conv_y", "conv_b"):
        yield from _layer(f"{name}.{part}.conv", channels, latent, 1, 1, 1)


def _layer(name: str, *weight: int) -> Shapes:
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]
