"""Latents to what was asked for: decode, and write or return the frames. Needs the VAE alone.

Sampled latents are kept on disk until the result is in its place (see `unfinished`).
"""

import gc
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kandinsky.config import FLASH_512, ModelSet
from kandinsky.errors import DecodeError
from kandinsky.interpolate.stream import count_of
from kandinsky.model.isolation import isolated
from kandinsky.output.between import smoothed
from kandinsky.output.options import FrameKind, Output, Writer, open_writer
from kandinsky.output.record import Record
from kandinsky.output.remaining import Remaining
from kandinsky.output.result import Frames, FramesResult, GenerationResult, LatentsResult, Result
from kandinsky.output.unfinished import Rescue, Unfinished, VaeSource, kept, no_rescue
from kandinsky.progress import Clock
from kandinsky.vae.autoencoder import VideoAutoencoder

T = TypeVar("T")
NOT_FINITE = "the latents hold values that are not finite: the weights may be damaged, or too large for their dtype"


@dataclass(frozen=True)
class Finisher:
    """Makes results of latents.

    Args:
        vae: that decodes.
        model_set: what it was trained for.
        source: how the VAE was loaded, for latents that another process finishes; None if that is not known.
        alone: no other process decodes with this one, so that a second attempt is possible.
        rescue: has latents saved before this process is ended because another one failed.
        progress: show a progress bar.
    """

    vae: VideoAutoencoder
    model_set: ModelSet = FLASH_512
    source: VaeSource | None = None
    alone: bool = True
    rescue: Rescue = no_rescue
    progress: bool = True

    def begin(
        self, latents: Tensor, path: Path | None, *, output: Output, record: Record, clock: Clock
    ) -> Callable[[], Result]:
        """Decode `[T, H, W, C]` latents and begin to write what was asked for.

        Args:
            path: checked target of a file; None if frames or latents are returned.

        Returns:
            A function, to be called once and from any thread, that waits for the encoder, puts the file in its place
            and returns the result. It does not use the devices. Until then the latents are safe.

        Raises:
            DecodeError: it failed, and the latents are saved; the function raises this too.
        """
        finite = bool(latents.isfinite().all())
        if output.kind == "latent" and finite:
            done = LatentsResult(
                seed=record.seed, timings=clock.total(), peak_memory=clock.peak_memory, latents=latents
            )
            return lambda: done
        unfinished = Unfinished(
            latents=latents.cpu(),  # a copy that is reachable even if the device hangs
            record=record,
            save_path=path,
            metadata=output.metadata,
            vae=self.source,
        )
        with ExitStack() as stack:
            stack.enter_context(kept(unfinished, rescue=self.rescue))
            if not finite or output.kind == "latent":
                raise FloatingPointError(NOT_FINITE)
            if output.kind != "file":
                with clock.stage("decode"):
                    frames = self.frames(latents, output.kind, output)
                for image in frames if isinstance(frames, list) else ():
                    image.info["seed"] = record.seed
                made = FramesResult(
                    seed=record.seed, timings=clock.total(), peak_memory=clock.peak_memory, frames=frames
                )
                return lambda: made
            assert path is not None
            write = self._begin_file(latents, path, output=output, record=record, clock=clock)
            safe = stack.pop_all()

        def finish() -> Result:
            with safe:
                return write()

        return finish

    def finish(self, remaining: Remaining) -> GenerationResult:
        """Decode and write what is left of an interrupted generation; its latents stay where they are.

        Raises:
            ValueError: the latents are not those of this VAE.
            DecodeError: it failed again.
        """
        latents, channels = remaining.latents, self.vae.config.latent_channels
        if latents.shape[-1] != channels:
            found = f"{latents.dtype} {list(latents.shape)}"
            raise ValueError(f"latents are {found}; allowed for this VAE: floating-point [T, H, W, {channels}]")
        clock = Clock(frozenset([self.vae.device]))
        output, record = remaining.output, remaining.record
        try:
            with isolated(), torch.inference_mode():
                moved = latents.to(self.vae.device)
                return self._begin_file(moved, remaining.path, output=output, record=record, clock=clock)()
        except (OSError, RuntimeError, ArithmeticError) as error:
            where = "" if remaining.file is None else f"; the latents are still in {remaining.file}"
            raise DecodeError(f"not finished ({(str(error) or repr(error)).splitlines()[0]}){where}") from error

    def frames(self, latents: Tensor, kind: FrameKind, output: Output | None = None) -> Frames:
        """All frames of `[T, H, W, C]` latents, with those in between that `output` asks for."""
        array = self._decode(latents, output, lambda chunks: np.concatenate([chunk.copy() for chunk in chunks]))
        if kind == "pil":
            return [Image.fromarray(frame) for frame in array]
        return array if kind == "np" else torch.from_numpy(array)

    def _begin_file(
        self, latents: Tensor, path: Path, *, output: Output, record: Record | None, clock: Clock
    ) -> Callable[[], GenerationResult]:
        """As `begin`, without a copy of the latents.

        Raises:
            VideoError, OSError: it could not be written; the function raises these too.
            torch.OutOfMemoryError: nor decoded with the least memory.
        """
        height, width = (size * self.model_set.spatial_compression for size in latents.shape[1:3])
        comment = record.to_json() if record is not None and output.metadata else None

        def consume(chunks: Iterator[np.ndarray]) -> tuple[Writer, ExitStack]:
            with ExitStack() as stack, clock.stage("decode"):

                def opened() -> Writer:
                    return stack.enter_context(open_writer(path, output, width=width, height=height, comment=comment))

                with ThreadPoolExecutor(1) as beside:  # the encoder's process starts while the device begins
                    opening = beside.submit(opened)
                    first = next(chunks)
                writer = opening.result()
                for chunk in chain([first], chunks):
                    writer.write(chunk)
                return writer, stack.pop_all()

        writer, opened = self._decode(latents, output, consume)

        def finish() -> GenerationResult:
            with opened, clock.host_stage("write"):
                writer.finish()
            return GenerationResult(
                seed=record and record.seed,
                timings=clock.total(),
                peak_memory=clock.peak_memory,
                path=path,
                num_frames=writer.num_frames,
                fps=output.fps or self.model_set.fps,
            )

        return finish

    def _chunks(self, latents: Tensor, output: Output | None, *, memory_saving: bool | None) -> Generator[np.ndarray]:
        """Frames, uint8 `[frames, height, width, 3]` chunk by chunk, each valid until the next."""
        frames = self.model_set.temporal_compression * (len(latents) - 1) + 1
        frames = count_of(frames, output and output.interpolate)
        with (
            tqdm(total=frames, desc="decoding", unit="frame", disable=not self.progress, leave=False) as bar,
            closing(smoothed(self.vae, latents, output, memory_saving=memory_saving)) as chunks,
        ):
            for chunk in chunks:
                yield chunk
                bar.update(len(chunk))

    def _decode(self, latents: Tensor, output: Output | None, consume: Callable[[Iterator[np.ndarray]], T]) -> T:
        """Decode into `consume`; out of memory, once more with the least memory (alone).

        Whatever happens, what runs for the frames has ended: an error's traceback would keep it for as long as itself.
        """
        try:
            with closing(self._chunks(latents, output, memory_saving=None)) as chunks:
                return consume(chunks)
        except torch.OutOfMemoryError:
            if not self.alone:
                raise
        # Outside of the handler: the exception's frames hold the decoder's buffers.
        gc.collect()
        torch.cuda.empty_cache()
        with closing(self._chunks(latents, output, memory_saving=True)) as chunks:
            return consume(chunks)
