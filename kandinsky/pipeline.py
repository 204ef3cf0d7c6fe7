"""The pipeline: encode the prompt, sample latents, decode frames, write the video.

Components arrive as arguments; nothing is downloaded, no environment is read. Every argument of a call is checked
before a model runs.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kandinsky.block_stream import RESIDENT, Home
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.latents_file import save_latents
from kandinsky.model.dit import DiT
from kandinsky.prompt_cache import PromptCache
from kandinsky.ranks import Ranks
from kandinsky.request import Job, check_request
from kandinsky.sampler import Schedule, sample
from kandinsky.text_encoder import TextEncoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_io import VideoWriter
from kandinsky.video_shape import VideoShape
from kandinsky.watchdog import rescue

T = TypeVar("T")


class DecodeError(RuntimeError):
    """Latents were sampled but could not be decoded; the message says where they are saved."""


@dataclass(frozen=True)
class GenerationResult:
    """A finished video.

    Args:
        path: of the file.
        seed: that makes it again.
        num_frames, fps: of the file.
        timings: seconds of each stage: `text`, `sample`, `decode` (frames are piped to the encoder meanwhile), `write`
            (what is left for the encoder after the last frame) and `total`.
        peak_memory: bytes allocated at most on the CUDA devices in each stage; empty without CUDA.
    """

    path: Path
    seed: int
    num_frames: int
    fps: int
    timings: dict[str, float]
    peak_memory: dict[str, int]


@dataclass
class _Clock:
    """Seconds and peak memory of each stage, with the devices' queues emptied at both ends."""

    devices: frozenset[torch.device]
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        devices = [device for device in self.devices if device.type == "cuda"]
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        yield
        for device in devices:
            torch.cuda.synchronize(device)
        self.seconds[name] = time.perf_counter() - start
        if devices:
            self.peak_memory[name] = sum(torch.cuda.max_memory_allocated(device) for device in devices)


class Kandinsky4T2VPipeline:
    """Text to video.

    Args:
        dit: the transformer.
        text_encoder: None on ranks that are not their team's first.
        vae: None there too, unless the team decodes together.
        schedule: timesteps of the sampler.
        model_set: what the weights were trained for.
        ranks: all processes; the main one gives the request.
        team: those that make a video together: all of `ranks`, or this process alone if they share out the jobs.
        progress: show progress bars on the main rank.

    Attributes:
        dit_home: entered around sampling, see `memory`.
    """

    def __init__(
        self,
        dit: DiT,
        text_encoder: TextEncoder | PromptCache | None,
        vae: VideoAutoencoder | None,
        schedule: Schedule,
        *,
        model_set: ModelSet = FLASH_512,
        ranks: Ranks | None = None,
        team: Ranks | None = None,
        progress: bool = True,
    ):
        self.dit = dit
        self.text_encoder = text_encoder
        self.vae = vae
        self.schedule = schedule
        self.model_set = model_set
        self.ranks = ranks or Ranks()
        self.team = team or self.ranks
        self.progress = progress and self.ranks.is_main
        self.dit_home: Home = RESIDENT
        # The schedule's timesteps are all that are ever asked for: their modulation is computed once.
        with torch.inference_mode():
            self.modulation = dit.modulation(torch.tensor(schedule.timesteps, device=dit.device)[:, None])

    @torch.inference_mode()
    def __call__(
        self,
        text: str | Sequence[str],
        save_path: str | os.PathLike[str] = "./test.mp4",
        bs: int = 1,
        time_length: int = 12,
        width: int = 512,
        height: int = 512,
        seed: int | None = None,
        return_frames: bool = False,
    ) -> GenerationResult | list[GenerationResult] | list[Image.Image] | list[list[Image.Image]] | None:
        """Make videos or images.

        Args:
            text: a prompt, or a list of prompts.
            save_path: file to write, ending in .mp4, .mov or .mkv; with several videos `-0`, `-1`, ... come before
                its ending. Not used where frames are returned.
            bs: videos for each prompt.
            time_length: whole seconds, 0 for an image.
            width, height: pixels, one of the sizes of the model set.
            seed: 0 to 2^63 - 1, of the first video; the next ones count up. Drawn if None. It is reported in the
                result, in the progress bar and in each PIL image's `info["seed"]`.
            return_frames: return PIL frames instead of writing a file.

        Returns:
            For `time_length=0` a list of PIL images. For `return_frames=True` the frames as a list of PIL images.
            Otherwise a `GenerationResult`. Several videos give a list of these. None on ranks that do not write. Ranks
            that share out the jobs each return what they made.

        Raises:
            ValueError: an argument is not what it may be; no model has run.
            VideoError: the encoder failed.
            DecodeError: not enough memory to decode; the latents are saved.
        """
        shape = VideoShape.from_request(time_length, height, width, model_set=self.model_set)
        written = not (shape.is_image or return_frames)
        request = check_request(text, save_path=save_path if written else None, bs=bs, shape=shape, seed=seed)
        jobs = self.ranks.share(request).jobs
        mine = jobs if self.team.size == self.ranks.size else jobs[self.ranks.rank :: self.ranks.size]
        results = [self._run(job, shape) for job in mine]
        if not self.team.is_main or not results:
            return None
        if shape.is_image:
            return [image for images in results for image in images]  # type: ignore[union-attr]
        return results if len(jobs) > 1 else results[0]  # type: ignore[return-value]

    def _run(self, job: Job, shape: VideoShape) -> GenerationResult | list[Image.Image] | None:
        clock = _Clock(frozenset(part.device for part in (self.dit, self.vae, self.text_encoder) if part is not None))
        start = time.perf_counter()
        with clock.stage("text"):
            text = self._encode(job.prompt)
        with clock.stage("sample"):
            latents = self.sample_latents(text, shape, seed=job.seed)
        if not self.team.is_main:
            self._help_decode(latents)
            return None
        kept = latents.cpu() if self.team.size > 1 else latents  # reachable even if the device hangs
        with rescue(lambda: save_latents(kept, job)):
            if job.path is None:
                return self._images(latents, job)
            self._write(latents, job, shape, clock)
        clock.seconds["total"] = time.perf_counter() - start
        return GenerationResult(
            job.path, job.seed, shape.num_frames, self.model_set.fps, clock.seconds, clock.peak_memory
        )

    def _encode(self, prompt: str) -> Tensor:
        """`[text_tokens, in_text_dim]` on the DiT's device, on every rank."""
        text = self.text_encoder(prompt) if self.text_encoder is not None else None
        shape = (self.model_set.text_tokens, self.dit.config.in_text_dim)
        return self.team.share_tensor(text, shape, device=self.dit.device, dtype=self.dit.dtype)

    @torch.inference_mode()
    def sample_latents(self, text: Tensor, shape: VideoShape, *, seed: int) -> Tensor:
        """Latents `[T, H, W, C]` for a text embedding `[text_tokens, in_text_dim]` on the DiT's device."""
        dit, device = self.dit, self.dit.device
        context = dit.prepare(text, self.modulation, dit.layout(shape.latent_grid, len(text)))
        title = f"sampling, seed {seed}"
        with (
            tqdm(total=len(self.schedule.timesteps), desc=title, disable=not self.progress, leave=False) as bar,
            self.dit_home,
        ):

            def on_step(_index: int, _latents: Tensor) -> None:
                if self.progress and device.type == "cuda":
                    torch.cuda.synchronize(device)  # else the bar would show launches, not steps
                bar.update()

            return sample(
                lambda latents, index: dit.step(latents.to(dit.dtype), context, index),
                (*shape.latent_grid, dit.config.in_visual_dim),
                self.schedule,
                generator=torch.Generator("cpu").manual_seed(seed),
                device=device,
                on_step=on_step,
            )

    def _help_decode(self, latents: Tensor) -> None:
        """Decode this rank's part of the frames, which go to the main rank."""
        if self.vae is not None:
            for _ in self.vae.decode(latents):
                pass

    def _chunks(self, latents: Tensor, *, memory_saving: bool | None) -> Iterator[np.ndarray]:
        """Frames, uint8 `[frames, height, width, 3]` chunk by chunk, each valid until the next."""
        assert self.vae is not None
        frames = self.model_set.temporal_compression * (len(latents) - 1) + 1
        with tqdm(total=frames, desc="decoding", unit="frame", disable=not self.progress, leave=False) as bar:
            for chunk in self.vae.frames(latents, memory_saving=memory_saving):
                yield chunk.numpy()
                bar.update(len(chunk))

    def _decode(self, latents: Tensor, job: Job, consume: Callable[[Iterator[np.ndarray]], T]) -> T:
        """Decode into `consume`; out of memory, once more with the least memory (alone); then save the latents.

        Raises:
            DecodeError: there was not enough memory; the message says where the latents are.
        """
        failure = ""
        for memory_saving in (None, True) if self.team.size == 1 else (None,):
            try:
                return consume(self._chunks(latents, memory_saving=memory_saving))
            except torch.OutOfMemoryError as error:
                failure = str(error).splitlines()[0]
            # Outside of the handler: the exception's frames hold the decoder's buffers.
            gc.collect()
            torch.cuda.empty_cache()
        path = save_latents(latents, job)
        raise DecodeError(f"not enough memory to decode ({failure}); the latents are saved in {path}")

    def _images(self, latents: Tensor, job: Job) -> list[Image.Image]:
        def collect(chunks: Iterator[np.ndarray]) -> list[Image.Image]:
            return [Image.fromarray(frame.copy()) for chunk in chunks for frame in chunk]

        images = self._decode(latents, job, collect)
        for image in images:
            image.info["seed"] = job.seed
        return images

    def _write(self, latents: Tensor, job: Job, shape: VideoShape, clock: _Clock) -> None:
        assert job.path is not None
        path = job.path

        def write(chunks: Iterator[np.ndarray]) -> None:
            with VideoWriter(path, width=shape.width, height=shape.height, fps=self.model_set.fps) as writer:
                with clock.stage("decode"):
                    for chunk in chunks:
                        writer.write(chunk)
                with clock.stage("write"):
                    writer.finish()

        self._decode(latents, job, write)
