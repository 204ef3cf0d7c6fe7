"""The VAE as the pipeline sees it: latents to a stream of frames, frames to latents.

Decoding is our own runtime (see `decoder`) over the weights of diffusers' `AutoencoderKLCogVideoX` (CogVideoX, arXiv
2408.06072). Encoding is diffusers' own, which is imported and loaded when it is first asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kandinsky.checkpoint import check_fit, load_weights, open_checkpoint, read_config, read_tensors
from kandinsky.messages import Messenger
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.shapes import decoder_shapes
from kandinsky.vae.stream import decode, to_host
from kandinsky.vae.strips import Strip
from kandinsky.vae.weights import DecoderConfig
from kandinsky.weight_files import Checkpoint, CheckpointError

PREFIX = "decoder."


class VideoAutoencoder:
    """Weights of one VAE.

    Args:
        config: of the decoder.
        state: the decoder's tensors, as diffusers names them; for a staged one on the host.
        open_autoencoder: gives diffusers' `AutoencoderKLCogVideoX`, on any device.
        device: where it runs.
        memory_saving: keep decoding's buffers between chunks on the host: the same result with 1.3 GB less at 672x384,
            slower.
        messenger: of ranks that decode together, each a strip of the picture; see `strips`.
        staged: the decoder is on the device only while it decodes.
    """

    def __init__(
        self,
        config: DecoderConfig,
        state: Mapping[str, Tensor],
        open_autoencoder: Callable[[], Any],
        *,
        device: torch.device,
        memory_saving: bool = False,
        messenger: Messenger | None = None,
        staged: bool = False,
    ):
        self.config = config
        self.device = device
        self.memory_saving = memory_saving
        self.messenger = messenger
        self.staged = staged
        self._open_autoencoder = open_autoencoder
        self._state = state if staged else {}
        self._decoder = None if staged else CausalDecoder(state, config)

    @classmethod
    def from_diffusers(cls, autoencoder: Any, **settings: Any) -> "VideoAutoencoder":
        """Of an `AutoencoderKLCogVideoX`; `settings` as the constructor takes them, by default on the VAE's device."""
        config = DecoderConfig.from_mapping(autoencoder.config)
        state = {name: value.detach() for name, value in autoencoder.decoder.state_dict().items()}
        return cls(config, state, lambda: autoencoder, **{"device": autoencoder.device, **settings})

    @cached_property
    def autoencoder(self) -> Any:
        """diffusers' `AutoencoderKLCogVideoX`, which encodes."""
        return self._open_autoencoder()

    def _staged(self) -> CausalDecoder:
        return CausalDecoder({name: value.to(self.device) for name, value in self._state.items()}, self.config)

    def decode(self, latents: Tensor, *, memory_saving: bool | None = None) -> Iterator[Tensor]:
        """Decode one clip.

        Args:
            latents: `[T, H, W, C]` as sampled (scaled), any floating dtype.
            memory_saving: other than this VAE's own.

        Yields:
            uint8 `[frames, 8 H, 8 W, 3]` on the VAE's device: first 9 frames (or 1, or 8), then 8 each. With several
            ranks all must call this with the same latents; the first one gets the frames, the others nothing.
        """
        saving = self.memory_saving if memory_saving is None else memory_saving
        decoder = self._decoder or self._staged()
        if self.messenger is None:
            yield from decode(decoder, latents, memory_saving=saving)
        elif self.messenger.ranks.size <= latents.shape[1]:
            strip = Strip(self.messenger, latents.shape[1])
            for part in decode(decoder, latents, memory_saving=saving, strip=strip):
                frames = strip.collect(part)
                if frames is not None:
                    yield frames
        elif self.messenger.ranks.is_main:  # fewer latent rows than ranks
            yield from decode(decoder, latents, memory_saving=saving)

    def frames(self, latents: Tensor, *, memory_saving: bool | None = None) -> Iterator[Tensor]:
        """As `decode`, but on the host, copied meanwhile; each chunk is valid until the next is asked for."""
        return to_host(self.decode(latents, memory_saving=memory_saving))

    @torch.inference_mode()
    def encode(self, frames: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Frames to scaled latents, the inverse of `decode`, for training data.

        Args:
            frames: uint8 `[F, height, width, 3]`; F is 1 or 4 n + 1.
            generator: on the VAE's device; draws from the posterior. Without one its mean is taken.

        Returns:
            `[T, height / 8, width / 8, C]` in the VAE's dtype, T = (F - 1) / 4 + 1.

        Raises:
            ValueError: a number of frames or a size that has no latent grid.
        """
        count, height, width, channels = frames.shape
        if frames.dtype != torch.uint8 or channels != 3 or (count - 1) % 4 or height % 8 or width % 8:
            found = f"{frames.dtype} {list(frames.shape)}"
            raise ValueError(f"frames are {found}; allowed: uint8 [4 n + 1, multiple of 8, multiple of 8, 3]")
        vae = self.autoencoder
        torch.nn.Module.to(vae, self.device)  # diffusers' own `to` warns about modules that this model does not have
        pixels = frames.to(vae.device).permute(3, 0, 1, 2)[None].to(vae.dtype) / 127.5 - 1
        posterior = vae.encode(pixels).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        if self.staged:
            torch.nn.Module.to(vae, "cpu")
        return latents[0].permute(1, 2, 3, 0) * self.config.scaling_factor


def load_vae(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    memory_saving: bool = False,
    messenger: Messenger | None = None,
    staged: bool = False,
    progress: bool = False,
) -> VideoAutoencoder:
    """The VAE that decodes on `device` in `dtype`.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights are damaged or do not fit `config.json`.
    """
    mapping = read_config(folder, "_class_name", "AutoencoderKLCogVideoX")
    checkpoint = open_checkpoint(folder)
    config = _decoder_config(folder, mapping)
    shapes = {PREFIX + name: shape for name, shape in decoder_shapes(config).items()}
    check_fit(checkpoint, shapes, prefix=PREFIX)
    place = torch.device("cpu") if staged else device
    tensors = read_tensors(checkpoint, shapes, device=place, dtype=dtype, progress=progress)
    return VideoAutoencoder(
        config,
        {name.removeprefix(PREFIX): value for name, value in tensors.items()},
        partial(_open_autoencoder, mapping, checkpoint, place, dtype),
        device=device,
        memory_saving=memory_saving,
        messenger=messenger,
        staged=staged,
    )


def _decoder_config(folder: Path, mapping: Mapping[str, Any]) -> DecoderConfig:
    try:
        return DecoderConfig.from_mapping(mapping)
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} lacks {error}") from error


def _open_autoencoder(
    config: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> Any:
    """diffusers' module."""
    from diffusers import AutoencoderKLCogVideoX

    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX.from_config(dict(config))
    assert isinstance(vae, AutoencoderKLCogVideoX)
    load_weights(vae, checkpoint, device=device, dtype=dtype)
    return vae
