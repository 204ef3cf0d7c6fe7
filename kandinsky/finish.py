"""Latents to what was asked for: decode, and write or return the frames. Needs the VAE alone."""

import dataclasses
import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kandinsky.clock import Clock
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.latents_file import DecodeError, Unfinished, load_unfinished
from kandinsky.output import Output, OutputOptions, Writer, check_output, open_writer
from kandinsky.record import Record
from kandinsky.target import VIDEO_CODECS, check_target
from kandinsky.vae.autoencoder import VideoAutoencoder

T = TypeVar("T")
Frames = list[Image.Image] | np.ndarray | Tensor


@dataclass(frozen=True)
class GenerationResult:
    """A finished file.

    Args:
        path: of the file, or of the folder of png frames.
        seed: that makes it again; None for latents that nothing is known about.
        num_frames: in the file.
        fps: of the file; of an image, the model's.
        timings: seconds of each stage: `text`, `sample`, `decode` (frames are piped to the encoder meanwhile), `write`
            (what is left for the encoder after the last frame) and `total`.
        peak_memory: bytes allocated at most on the CUDA devices in each stage; empty without CUDA.
    """

    path: Path
    seed: int | None
    num_frames: int
    fps: int
    timings: dict[str, float]
    peak_memory: dict[str, int]


@dataclass(frozen=True)
class Finisher:
    """Makes files and frames of latents.

    Args:
        vae: that decodes.
        model_set: what it was trained for.
        alone: no other process decodes with this one, so that a second attempt is possible.
        progress: show a progress bar.
    """

    vae: VideoAutoencoder
    model_set: ModelSet = FLASH_512
    alone: bool = True
    progress: bool = True

    def frames(self, latents: Tensor, kind: str) -> Frames:
        """All frames of `[T, H, W, C]` latents: "pil" a list of images, "np" and "pt" uint8 `[F, height, width, 3]`."""
        array = self._decode(latents, lambda chunks: np.concatenate([chunk.copy() for chunk in chunks]))
        if kind == "pil":
            return [Image.fromarray(frame) for frame in array]
        return array if kind == "np" else torch.from_numpy(array)

    def begin(
        self, latents: Tensor, path: Path, *, output: Output, record: Record | None, clock: Clock
    ) -> Callable[[], GenerationResult]:
        """Decode `[T, H, W, C]` latents into the encoder of a checked path.

        Returns:
            A function, to be called once and from any thread, that waits for the encoder and puts the file in its
            place. It does not use the devices.

        Raises:
            VideoError, OSError: it could not be written; the function raises these too.
            torch.OutOfMemoryError: nor decoded with the least memory.
        """
        height, width = (size * self.model_set.spatial_compression for size in latents.shape[1:3])
        comment = record.to_json() if record is not None and output.metadata else None

        def consume(chunks: Iterator[np.ndarray]) -> tuple[Writer, ExitStack]:
            with ExitStack() as stack:
                writer = stack.enter_context(open_writer(path, output, height=height, width=width, comment=comment))
                with clock.stage("decode"):
                    for chunk in chunks:
                        writer.write(chunk)
                return writer, stack.pop_all()

        writer, opened = self._decode(latents, consume)

        def finish() -> GenerationResult:
            with opened, clock.host_stage("write"):
                writer.finish()
            seed, fps = record and record.seed, output.fps or self.model_set.fps
            return GenerationResult(path, seed, writer.num_frames, fps, clock.seconds, clock.peak_memory)

        return finish

    @torch.inference_mode()
    def decode_to(
        self,
        latents: Tensor | str | os.PathLike[str],
        save_path: str | os.PathLike[str] | None = None,
        *,
        fps: int | None = None,
        crf: int | None = None,
        codec: str | None = None,
        metadata: bool | None = None,
    ) -> GenerationResult:
        """Finish a generation.

        Args:
            latents: `[T, H, W, C]` as sampled, or a `.latents.safetensors` file; it is left where it is.
            save_path: as in a call of the pipeline; None is the target that the file names.
            fps, crf, codec, metadata: as in a call of the pipeline; None is what the file says.

        Raises:
            ValueError: an argument is not what it may be, or the file is damaged.
            FileNotFoundError: there is no such file.
            DecodeError: it failed again.
        """
        start = time.perf_counter()
        unfinished = target = record = None
        if not isinstance(latents, Tensor):
            unfinished, target = load_unfinished(latents)
            record = unfinished.record
        tensor = latents if isinstance(latents, Tensor) else unfinished.latents  # type: ignore[union-attr]
        self._check_latents(tensor)
        given = OutputOptions(type="file", fps=fps, crf=crf, codec=codec, metadata=_wanted(metadata, unfinished))
        save_path = target if save_path is None else save_path
        if save_path is None:
            raise ValueError("save_path=None: these latents do not say where their result goes; name a file")
        options = _as_before(given, record, Path(save_path).suffix.lower(), is_image=len(tensor) == 1)
        output, path = check_output(save_path, options, is_image=len(tensor) == 1, model_fps=self.model_set.fps)
        assert path is not None
        check_target(save_path, is_image=len(tensor) == 1)
        if record is not None:
            record = dataclasses.replace(record, fps=output.fps, crf=output.crf, codec=output.codec)
        clock = Clock(frozenset([self.vae.device]))
        try:
            result = self.begin(tensor.to(self.vae.device), path, output=output, record=record, clock=clock)()
        except (OSError, RuntimeError) as error:
            where = "" if isinstance(latents, Tensor) else f"; the latents are still in {latents}"
            raise DecodeError(f"not finished ({(str(error) or repr(error)).splitlines()[0]}){where}") from error
        clock.seconds["total"] = time.perf_counter() - start
        return result

    def _check_latents(self, latents: Tensor) -> None:
        channels = self.vae.config.latent_channels
        if latents.ndim != 4 or latents.shape[-1] != channels or 0 in latents.shape or not latents.is_floating_point():
            found = f"{latents.dtype} {list(latents.shape)}"
            raise ValueError(f"latents are {found}; allowed: floating-point [T, H, W, {channels}], not empty")
        if not self.alone:
            raise ValueError("decode_to works in one process; this pipeline's processes decode together")

    def _chunks(self, latents: Tensor, *, memory_saving: bool | None) -> Iterator[np.ndarray]:
        """Frames, uint8 `[frames, height, width, 3]` chunk by chunk, each valid until the next."""
        frames = self.model_set.temporal_compression * (len(latents) - 1) + 1
        with tqdm(total=frames, desc="decoding", unit="frame", disable=not self.progress, leave=False) as bar:
            for chunk in self.vae.frames(latents, memory_saving=memory_saving):
                yield chunk.numpy()
                bar.update(len(chunk))

    def _decode(self, latents: Tensor, consume: Callable[[Iterator[np.ndarray]], T]) -> T:
        """Decode into `consume`; out of memory, once more with the least memory (alone)."""
        try:
            return consume(self._chunks(latents, memory_saving=None))
        except torch.OutOfMemoryError:
            if not self.alone:
                raise
        # Outside of the handler: the exception's frames hold the decoder's buffers.
        gc.collect()
        torch.cuda.empty_cache()
        return consume(self._chunks(latents, memory_saving=True))


def _wanted(metadata: bool | None, unfinished: Unfinished | None) -> bool:
    if metadata is None:
        return unfinished is None or unfinished.metadata
    return metadata


def _as_before(given: OutputOptions, record: Record | None, ending: str, *, is_image: bool) -> OutputOptions:
    """Options with what `record` says where nothing was given and a file with this ending has such a thing."""
    if record is None or is_image:
        return given
    options = given if given.fps is not None else dataclasses.replace(given, fps=record.fps)
    if given.codec is None and given.crf is None and record.codec in VIDEO_CODECS.get(ending, ()):
        options = dataclasses.replace(options, codec=record.codec, crf=record.crf)
    return options
