"""The pipeline: encode the prompt, sample latents, decode frames, write the video.

Components arrive as arguments; nothing is downloaded, no environment is read. Every argument of a call is checked
before a model runs.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from kandinsky.block_stream import RESIDENT, Home
from kandinsky.clock import Clock
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.finish import Finisher, Frames, GenerationResult
from kandinsky.latents_file import DecodeError, Unfinished, VaeSource, kept
from kandinsky.model.dit import DiT
from kandinsky.output import Output, OutputOptions
from kandinsky.pretrained import Pretrained
from kandinsky.prompt_cache import PromptCache
from kandinsky.ranks import Ranks
from kandinsky.record import Origin, Record
from kandinsky.request import Job, check_request, options_of_call
from kandinsky.sampler import Schedule, sample
from kandinsky.steps import OnStepEnd, Steps, StoppedError, check_callback, go_on
from kandinsky.text_encoder import TextEncoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_shape import VideoShape

__all__ = ["DecodeError", "Finish", "GenerationResult", "Kandinsky4T2VPipeline", "StoppedError"]

Finish = Callable[[], GenerationResult | Frames | None]


class Kandinsky4T2VPipeline(Pretrained):
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

    `origin` and `vae_source` say how it was loaded, for records and for latents of unfinished videos; who puts a
    pipeline together may set them. `dit_home` is entered around sampling, see `memory`.
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
        self.origin: Origin | None = None
        self.vae_source: VaeSource | None = None
        # The schedule's timesteps are all that are ever asked for: their modulation is computed once.
        with torch.inference_mode():
            self.modulation = dit.modulation(torch.tensor(schedule.timesteps, device=dit.device)[:, None])

    @torch.inference_mode()
    def __call__(
        self,
        text: str | Sequence[str],
        save_path: str | os.PathLike[str] = "./test.mp4",
        bs: int = 1,
        time_length: int | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
        return_frames: bool = False,
        *,
        output_type: str | None = None,
        fps: int | None = None,
        crf: int | None = None,
        codec: str | None = None,
        metadata: bool = True,
        callback_on_step_end: OnStepEnd | None = None,
    ) -> GenerationResult | Frames | list[GenerationResult] | list[Frames] | None:
        """Make videos or images.

        Args:
            text: a prompt, or a list of prompts.
            save_path: file to write: a video (.mp4, .mov, .mkv, .webm), an animation (.gif, .webp) or, ending in a
                slash, a new folder of png frames; an image .png, .jpg or .webp. With several videos `-0`, `-1`, ...
                come before its ending. Not used where frames are returned.
            bs: videos for each prompt.
            time_length: whole seconds, 0 for an image; by default 12, or the most that the model set allows.
            width, height: pixels, one of the sizes of the model set; by default its first, 512x512 of the published.
            seed: 0 to 2^63 - 1, of the first video; the next ones count up. Drawn if None. It is reported in the
                result, in the progress bar and in each PIL image's `info["seed"]`.
            return_frames: the published way to say `output_type="pil"`.
            output_type: "file" writes `save_path`, "pil", "np" and "pt" return the frames, "latent" the latents before
                decoding. None is "file" for videos and "pil" for images.
            fps: 1 to 120, frames per second that the file plays at (default: the model's 8); the frames stay the same.
            crf: quality of a video file, 0 (best) to 51 (63 for vp9); default 5 for h264, 10 for hevc, 15 for vp9.
            codec: "h264" (default), "hevc" or "vp9" (default of .webm).
            metadata: write the record of the generation into the file; see `kandinsky show`.
            callback_on_step_end: called after each step with the number of steps done (1 to `total`), `total`, and the
                latents `[T, H, W, C]` on the DiT's device; returning False stops the run. Of several ranks that make
                a video together, the first one's is asked.

        Returns:
            A `GenerationResult` for a file; a list of PIL images; uint8 `[frames, height, width, 3]` as an array or a
            CPU tensor; latents `[T, H, W, C]`. Several videos give a list of these, several PIL images one flat list.
            None on ranks that do not write. Ranks that share out the jobs each return what they made.

        Raises:
            ValueError: an argument is not what it may be; no model has run.
            DecodeError: sampled, but not decoded or written; the latents are saved, and the message says where.
            StoppedError: the callback returned False; videos of this call that were finished before stay.
        """
        check_callback(callback_on_step_end)
        shape = VideoShape.from_request(time_length, height, width, model_set=self.model_set)
        given = OutputOptions(type=output_type, fps=fps, crf=crf, codec=codec, metadata=metadata)
        options = options_of_call(given, return_frames=return_frames)
        request = check_request(text, save_path=save_path, bs=bs, shape=shape, seed=seed, options=options)
        request, watched = self.ranks.share((request, callback_on_step_end is not None))
        jobs, on_step_end = request.jobs, (callback_on_step_end or go_on) if watched else None
        mine = jobs if self.team.size == self.ranks.size else jobs[self.ranks.rank :: self.ranks.size]
        results = [self.start(job, request.shape, request.output, on_step_end=on_step_end)() for job in mine]
        if not self.team.is_main or not results:
            return None
        if request.shape.is_image and request.output.type == "pil":
            return [image for images in results for image in images]  # type: ignore[union-attr]
        return results if len(jobs) > 1 else results[0]  # type: ignore[return-value]

    @torch.inference_mode()
    def start(
        self,
        job: Job,
        shape: VideoShape,
        output: Output,
        *,
        text: Tensor | None = None,
        on_step_end: OnStepEnd | None = None,
    ) -> Finish:
        """Encode, sample and decode a checked job.

        Args:
            text: what the text encoder made of the prompt, if it has run already.

        Returns:
            A function, to be called once and from any thread, that waits for the video encoder, puts the file in its
            place and returns the result. It does not use the devices: the next job may start before.

        Raises:
            DecodeError, StoppedError: as a call; the function raises DecodeError too.
        """
        clock = Clock(frozenset(part.device for part in (self.dit, self.vae, self.text_encoder) if part is not None))
        start = time.perf_counter()
        with clock.stage("text"):
            text = self._encode(job.prompt, text)
        with clock.stage("sample"):
            latents = self.sample_latents(text, shape, seed=job.seed, on_step_end=on_step_end)
        if output.type == "latent":
            result = latents if self.team.is_main else None
            return lambda: result
        if not self.team.is_main:
            self._help_decode(latents)
            return lambda: None
        complete = self._decode(latents, job, shape, output, clock)

        def finish() -> GenerationResult | Frames:
            result = complete()
            clock.seconds["total"] = time.perf_counter() - start
            return result

        return finish

    def _decode(
        self, latents: Tensor, job: Job, shape: VideoShape, output: Output, clock: Clock
    ) -> Callable[[], GenerationResult | Frames]:
        """Decode; the latents are safe until the returned function has written the result or is done."""
        record = self._record(job, shape, output)
        unfinished = Unfinished(
            latents=latents.cpu(),  # a copy that is reachable even if the device hangs
            record=record,
            save_path=job.path,
            metadata=output.metadata,
            vae=self.vae_source,
        )
        with ExitStack() as stack:
            stack.enter_context(kept(unfinished))
            if job.path is None:
                frames = self.finisher.frames(latents, output.type)
                for image in frames if isinstance(frames, list) else ():
                    image.info["seed"] = job.seed
                return lambda: frames
            write = self.finisher.begin(latents, job.path, output=output, record=record, clock=clock)
            safe = stack.pop_all()

        def finish() -> GenerationResult:
            with safe:
                return write()

        return finish

    def _record(self, job: Job, shape: VideoShape, output: Output) -> Record:
        return Record(
            prompt=job.prompt,
            seed=job.seed,
            width=shape.width,
            height=shape.height,
            time_length=shape.seconds,
            fps=output.fps,
            crf=output.crf,
            codec=output.codec,
            origin=self.origin,
        )

    @property
    def is_resident(self) -> bool:
        """Whether all weights that this process has stay on their devices."""
        homes = [self.dit_home, *([] if self.text_encoder is None else [self.text_encoder.home])]
        return all(home is RESIDENT for home in homes) and not (self.vae is not None and self.vae.staged)

    @property
    def finisher(self) -> Finisher:
        """What decodes and writes; only where there is a VAE."""
        assert self.vae is not None
        return Finisher(self.vae, self.model_set, alone=self.team.size == 1, progress=self.progress)

    def decode_to(
        self,
        latents: Tensor | str | os.PathLike[str],
        save_path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> GenerationResult:
        """Finish an interrupted generation; see `Finisher.decode_to`, which takes the same arguments."""
        return self.finisher.decode_to(latents, save_path, **options)

    def _encode(self, prompt: str, text: Tensor | None = None) -> Tensor:
        """`[text_tokens, in_text_dim]` on the DiT's device, on every rank."""
        if text is None and self.text_encoder is not None:
            text = self.text_encoder(prompt)
        shape = (self.model_set.text_tokens, self.dit.config.in_text_dim)
        return self.team.share_tensor(text, shape, device=self.dit.device, dtype=self.dit.dtype)

    @torch.inference_mode()
    def sample_latents(
        self, text: Tensor, shape: VideoShape, *, seed: int, on_step_end: OnStepEnd | None = None
    ) -> Tensor:
        """Latents `[T, H, W, C]` for a text embedding `[text_tokens, in_text_dim]` on the DiT's device.

        Raises:
            StoppedError: `on_step_end` returned False.
        """
        dit = self.dit
        context = dit.prepare(text, self.modulation, dit.layout(shape.latent_grid, len(text)))
        steps = Steps(
            len(self.schedule.timesteps),
            team=self.team,
            on_step_end=on_step_end,
            description=f"sampling, seed {seed}",
            progress=self.progress,
        )
        with steps as on_step, self.dit_home:
            return sample(
                lambda latents, index: dit.step(latents.to(dit.dtype), context, index),
                (*shape.latent_grid, dit.config.in_visual_dim),
                self.schedule,
                generator=torch.Generator("cpu").manual_seed(seed),
                device=dit.device,
                on_step=on_step,
            )

    def _help_decode(self, latents: Tensor) -> None:
        """Decode this rank's part of the frames, which go to the main rank."""
        if self.vae is not None:
            for _ in self.vae.decode(latents):
                pass
