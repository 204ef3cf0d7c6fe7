"""The VAE as the pipeline sees it: latents to a stream of frames, frames to latents.

Decoding is our own runtime (see `decoder`) over the weights of diffusers' `AutoencoderKLCogVideoX` (CogVideoX, arXiv
2408.06072). Encoding is diffusers' own, which is imported and loaded when it is first asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.decoder_weights import DecoderConfig
from kandinsky.vae.norm import PlainOps
from kandinsky.vae.rows import Rows, RowsOf, all_rows
from kandinsky.vae.stream import LATENT_FRAMES_PER_CHUNK, Finite, decode, to_host


class VideoAutoencoder:
    """Weights of one VAE.

    Args:
        config: of the decoder.
        state: the decoder's tensors, as diffusers names them; for a staged one on the host.
        open_autoencoder: gives diffusers' `AutoencoderKLCogVideoX`, on any device.
        device: where it runs.
        memory_saving: keep decoding's buffers between chunks on the host: the same result with 1.3 GB less at 672x384,
            slower.
        rows_of: which rows of the picture are decoded here; several ranks decode a strip each.
        staged: the decoder is on the device only while it decodes.
        kernels: "torch" decodes without Triton; else its kernels are taken where they run.
    """

    def __init__(
        self,
        config: DecoderConfig,
        state: Mapping[str, Tensor],
        open_autoencoder: Callable[[], Any],
        *,
        device: torch.device,
        memory_saving: bool = False,
        rows_of: RowsOf = all_rows,
        staged: bool = False,
        kernels: str = "auto",
    ):
        self.config = config
        self.device = device
        self.memory_saving = memory_saving
        self._rows_of = rows_of
        self.staged = staged
        self._open_autoencoder = open_autoencoder
        self._state = state if staged else {}
        self._ops = PlainOps() if kernels == "torch" else None
        self._decoder = None if staged else CausalDecoder(state, config, ops=self._ops)

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

    def whole(self) -> "VideoAutoencoder":
        """The same weights, decoding the whole picture here, whatever strip of it this one takes among other ranks."""
        if self._rows_of is all_rows:
            return self
        alone = copy(self)
        alone._rows_of = all_rows
        return alone

    def _staged(self) -> CausalDecoder:
        state = {name: value.to(self.device) for name, value in self._state.items()}
        return CausalDecoder(state, self.config, ops=self._ops)

    def warm_up(self) -> None:
        """Decode a few pixels on a GPU, whose libraries are loaded then and not while the first video waits."""
        if self._decoder is not None and self.device.type == "cuda":
            size = (LATENT_FRAMES_PER_CHUNK, 2, 2, self.config.latent_channels)
            latents = torch.zeros(size, device=self.device, dtype=self._decoder.dtype)
            self._decoder.open_clip(latents).decode_chunk(latents)

    def rows(self, latents: Tensor) -> Rows | None:
        """Which rows of `[T, H, W, C]` latents are decoded here; None if others decode them all."""
        return self._rows_of(latents.shape[1])

    def decode(
        self, latents: Tensor, *, memory_saving: bool | None = None, everywhere: bool = False
    ) -> Iterator[Tensor]:
        """Decode one clip.

        Args:
            latents: `[T, H, W, C]` as sampled (scaled), any floating dtype.
            memory_saving: other than this VAE's own.
            everywhere: all ranks that decode get the frames.

        Yields:
            uint8 `[frames, 8 H, 8 W, 3]` on the VAE's device: first 9 frames (or 1, or 8), then 8 each. With several
            ranks all must call this with the same latents; the first one gets the frames, the others nothing.

        Raises:
            FloatingPointError: after the last frame, if any was not finite.
        """
        saving = self.memory_saving if memory_saving is None else memory_saving
        decoder = self._decoder or self._staged()
        rows = self.rows(latents)
        if rows is None:
            return
        finite = Finite()
        for part in decode(decoder, latents, memory_saving=saving, rows=rows, see=finite.see):
            frames = rows.collect(part, everywhere=everywhere)
            if frames is not None:
                yield frames
        finite.check()

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
        with self._encoder() as vae:
            pixels = frames.to(self.device).permute(3, 0, 1, 2)[None].to(vae.dtype) / 127.5 - 1
            posterior = vae.encode(pixels).latent_dist
            latents = posterior.mode() if generator is None else posterior.sample(generator)
        return latents[0].permute(1, 2, 3, 0) * self.config.scaling_factor

    @contextmanager
    def _encoder(self) -> Iterator[Any]:
        """diffusers' autoencoder with the weights that encode on the device; a staged one's are there meanwhile."""
        vae = self.autoencoder
        parts = [part for part in (vae.encoder, vae.quant_conv) if part is not None]
        weights = [weight for part in parts for weight in part.parameters()]
        homes = [weight.data for weight in weights]
        for part in parts:
            torch.nn.Module.to(part, self.device)
        try:
            yield vae
        finally:
            for weight, home in zip(weights, homes, strict=True):
                if self.staged:
                    weight.data = home  # nothing is copied back
