"""A request to results: encode the prompt, sample latents, decode frames, write them.

`Runner` is what the public class is built on, and what a batch uses: it takes a checked `Request`, or one job of it at
a time, and knows nothing of the arguments that a request was made of. The parts arrive ready to run, in a frozen
`Parts`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor

from kandinsky import sampler
from kandinsky.errors import DecodeError
from kandinsky.known.given import Given
from kandinsky.known.latents import Known, known_of
from kandinsky.loading.adaptable import Adaptable
from kandinsky.loading.parts import Parts
from kandinsky.model.isolation import isolated
from kandinsky.output.between import smoothed
from kandinsky.output.finisher import NOT_FINITE, Finisher
from kandinsky.output.options import FrameKind, Output
from kandinsky.output.record import GivenRecord, Record
from kandinsky.output.result import Frames, Result
from kandinsky.parallel.watchdog import rescue
from kandinsky.progress import AfterStep, Clock, OnStep, Steps, Watch
from kandinsky.request import Job, Request
from kandinsky.video_shape import VideoShape

Finish = Callable[[], Result | None]
"""To be called once and from any thread: waits for the encoder, puts the file in its place, returns the result."""


class Runner(Adaptable):
    """Runs requests on some parts.

    Args:
        parts: everything that runs, from `loading.assemble.load_parts` or put together by hand.
    """

    def __init__(self, parts: Parts):
        super().__init__(parts)
        self._interrupt = False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Calls of one pipeline wait for each other, and do not see what the caller has set in PyTorch."""
        with self._lock, isolated(), torch.inference_mode():
            yield

    def run(self, request: Request, *, on_step: OnStep | None = None) -> list[Result]:
        """Make what a checked request asks for.

        Args:
            request: of `request_of`; of several ranks the main one's counts.
            on_step: as in a call.

        Returns:
            A result for each job that this process made; empty on ranks that do not write.

        Raises:
            DecodeError, StoppedError: as a call.
        """
        return self._run(self._shared_request(lambda: request), self._watch(on_step, None))

    def _shared_request(self, make: Callable[[], Request]) -> Request:
        """What the main rank makes, on every rank; pixels only where they are encoded.

        Raises:
            ValueError: on every rank, if it is refused.
        """
        whole: list[Request] = []

        def light() -> Request:
            whole.append(make())
            return whole[0] if self.team.size < self.ranks.size else whole[0].without_pixels()

        if self.ranks.size == 1:
            return make()
        shared = self.ranks.share_made(light)
        return whole[0] if self.ranks.is_main else shared

    def _run(self, request: Request, watch: Watch) -> list[Result]:
        with self._alone():
            self._interrupt = False  # not before: until the lock is there, it is another run's
            alone = self.team.size < self.ranks.size
            mine = request.jobs[self.ranks.rank :: self.ranks.size] if alone else request.jobs
            known = self._known_once(request.given, request.shape)
            results = [self._begin(job, request.shape, request.output, None, watch, known)() for job in mine]
            return [result for result in results if result is not None]

    def begin(
        self,
        job: Job,
        shape: VideoShape,
        output: Output,
        *,
        text_embed: Tensor | None = None,
        watch: Watch | None = None,
        given: Given | None = None,
    ) -> Finish:
        """Encode, sample and decode one checked job; the file may be finished while the next job begins.

        Args:
            text_embed: what the text encoder made of the prompt, if it has run already.
            watch: asked after each step.
            given: pixels that the result is to hold, or to begin with.

        Returns:
            A function, to be called once and from any thread, that waits for the video encoder, puts the file in its
            place and returns the result. It does not use the devices.

        Raises:
            DecodeError, StoppedError: as a call; the function raises DecodeError too.
        """
        with self._alone():
            known = self._known_once(given, shape)
            return self._begin(job, shape, output, text_embed, watch, known)

    def _begin(
        self,
        job: Job,
        shape: VideoShape,
        output: Output,
        text_embed: Tensor | None,
        watch: Watch | None,
        known: "KnownOnce | None",
    ) -> Finish:
        parts = (self.dit, self.vae, self.text_encoder)
        if job.loras is not None:
            self.use_adapters(job.loras)
        clock = Clock(frozenset(part.device for part in parts if part is not None))
        with clock.stage("text"):
            text_embed = self.encode(job.prompt) if text_embed is None else self._shared(text_embed)
        if known is not None:
            with clock.stage("given"):
                known()
        with clock.stage("sample"):
            latents = self.sample(text_embed, shape, seed=job.seed, watch=watch, known=known and known())
        if not self.team.is_main:
            if not latents.isfinite().all():  # as the first rank finds too
                raise DecodeError(NOT_FINITE)
            if output.kind != "latent":
                self._help_decode(latents, output)
            return lambda: None
        record = Record(
            prompt=job.prompt,
            seed=job.seed,
            width=shape.width,
            height=shape.height,
            time_length=shape.seconds,
            fps=output.fps,
            crf=output.crf,
            codec=output.codec,
            origin=self.origin,
            given=known and GivenRecord.of(known.given),
            interpolate=output.interpolate,
            interpolate_with=output.interpolate_with,
        )
        return self.finisher.begin(latents, job.path, output=output, record=record, clock=clock)

    def encode(self, prompt: str) -> Tensor:
        """A prompt's embedding `[text_tokens, in_text_dim]` on the DiT's device, on every rank of the team."""
        with self._alone():
            return self._shared(self.text_encoder(prompt) if self.text_encoder is not None else None)

    def known(self, given: Given, shape: VideoShape) -> Known:
        """What the first rank's VAE makes of given pixels, on the DiT's device of every rank of the team."""
        with self._alone():
            team, dit, made = self.team, self.dit, None
            if team.is_main:
                assert self.vae is not None
                made = known_of(given, self.vae.encode, shape.latent_grid, steps=len(self._parts.schedule.timesteps))
            dtype, first = team.share((made.latents.dtype, made.first) if made is not None else (dit.dtype, 0))
            size = (*shape.latent_grid, dit.config.in_visual_dim)
            latents = team.share_tensor(made and made.latents, size, device=dit.device, dtype=dtype)
            mask = team.share_tensor(made and made.mask, shape.latent_grid, device=dit.device, dtype=torch.uint8)
            return Known(latents, mask.bool(), first)

    def _known_once(self, given: Given | None, shape: VideoShape) -> "KnownOnce | None":
        return None if given is None else KnownOnce(given, lambda: self.known(given, shape))

    def sample(
        self,
        text_embed: Tensor,
        shape: VideoShape,
        *,
        seed: int,
        watch: Watch | None = None,
        known: Known | None = None,
    ) -> Tensor:
        """Latents `[T, H, W, C]` for a text embedding `[text_tokens, in_text_dim]` on the DiT's device.

        Args:
            known: what the result is to hold, or to begin with.

        Raises:
            StoppedError: `watch` stopped the run.
        """
        dit = self.dit
        steps = Steps(
            len(self._parts.schedule.timesteps),
            team=self.team,
            watch=watch,
            description=f"sampling, seed {seed}",
            progress=self.progress,
        )
        with self._alone(), steps as on_step, self._parts.dit_home or nullcontext():
            context = dit.prepare(text_embed, self._parts.modulation, dit.layout(shape.latent_grid, len(text_embed)))
            return sampler.sample(
                lambda latents, index: dit.step(latents.to(dit.dtype), context, index),
                (*shape.latent_grid, dit.config.in_visual_dim),
                self._parts.schedule,
                generator=torch.Generator("cpu").manual_seed(seed),
                device=dit.device,
                on_step=on_step,
                known=known,
            )

    def decode(self, latents: Tensor, kind: FrameKind = "np") -> Frames:
        """Frames of latents `[T, H, W, C]`: uint8 `[frames, height, width, 3]`, or with "pil" a list of images."""
        with self._alone():
            return self.finisher.frames(latents, kind)

    @property
    def interrupt(self) -> bool:
        """Whether the run that is under way is to stop after its step; set it, as diffusers' users do.

        Each run begins with False. Of several ranks that make a video together, the first one's counts.
        """
        return self._interrupt

    @interrupt.setter
    def interrupt(self, wanted: bool) -> None:
        self._interrupt = wanted

    @property
    def finisher(self) -> Finisher:
        """What decodes and writes; only where there is a VAE."""
        parts = self._parts
        assert parts.vae is not None
        alone = parts.team.size == 1
        return Finisher(
            parts.vae, parts.model_set, parts.vae_source, alone=alone, rescue=rescue, progress=self.progress
        )

    def _shared(self, text_embed: Tensor | None) -> Tensor:
        """The main rank's embedding on the DiT's device of every rank of the team."""
        shape = (self.model_set.text_tokens, self.dit.config.in_text_dim)
        return self.team.share_tensor(text_embed, shape, device=self.dit.device, dtype=self.dit.dtype)

    def _help_decode(self, latents: Tensor, output: Output) -> None:
        """Decode this rank's part of the frames, and make its part of those in between, which go to the main rank."""
        if self.vae is not None:
            for _ in smoothed(self.vae, latents, output, memory_saving=None):
                pass

    def _watch(self, on_step: OnStep | None, callback: AfterStep | None) -> Watch:
        """What is asked after each step: the callbacks, and `interrupt`, which any thread may set at any time.

        Raises:
            ValueError: a callback is not a function.
        """
        for name, given in (("on_step", on_step), ("callback_on_step_end", callback)):
            if given is not None and not callable(given):
                raise ValueError(f"{name}={given!r}: allowed is a function, or None")
        timesteps = self._parts.schedule.timesteps

        def watch(index: int, latents: Tensor) -> tuple[bool, Tensor | None]:
            goes_on, replaced = True, None
            if callback is not None:
                answer = callback(self, index, timesteps[index], {"latents": latents}) or {}
                replaced = answer.get("latents")
                replaced = None if replaced is latents else replaced
            if on_step is not None:
                goes_on = on_step(index + 1, len(timesteps), latents if replaced is None else replaced) is not False
            return goes_on and not self._interrupt, replaced

        return watch


class KnownOnce:
    """Given pixels, encoded when they are first asked for: all jobs of a request share them."""

    def __init__(self, given: Given, encode: Callable[[], Known]):
        self.given = given
        self._encode = cache(encode)

    def __call__(self) -> Known:
        """What the sampler takes."""
        return self._encode()
