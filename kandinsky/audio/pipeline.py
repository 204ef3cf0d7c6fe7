"""The public class of V2A: arguments of a call to a request, and the request to a sound.

A call is `sound_request_of(arguments)` and `run(request)`: whoever has a request already (the command) hands that in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor

from kandinsky.audio.clip import Clip, read_frames
from kandinsky.audio.embeddings import Embeddings, embeddings_of
from kandinsky.audio.mux import write_with_sound
from kandinsky.audio.parts import EncoderSource, SoundParts
from kandinsky.audio.record import SoundRecord
from kandinsky.audio.request import (
    GUIDANCE_SCALE,
    NEGATIVE_PROMPT,
    PROMPT,
    STEPS,
    FilePath,
    SoundRequest,
    sound_request_of,
)
from kandinsky.audio.result import SoundResult
from kandinsky.audio.sample import COMPRESSION, decode, first_noise, make_scheduler, sample
from kandinsky.audio.waveform import SAMPLE_RATE, waveform_of
from kandinsky.errors import DecodeError
from kandinsky.model.isolation import isolated
from kandinsky.output.video import read_comment
from kandinsky.parallel.ranks import Ranks
from kandinsky.progress import Clock, OnStep, Steps

NOT_FINITE = "the latents hold values that are not finite: the weights may be damaged, or too large for their dtype"
COLUMNS = 32
"""Columns of the spectrogram, 100 a second, come in these many at a time."""


class Kandinsky4V2APipeline:
    """Video to sound. Calls of one pipeline wait for each other.

    Args:
        parts: everything that runs, from `load.load_sound_parts` or put together by hand.
    """

    def __init__(self, parts: SoundParts):
        self._parts = parts
        self._interrupt = False
        self._lock = RLock()

    @property
    def parts(self) -> SoundParts:
        return self._parts

    @property
    def interrupt(self) -> bool:
        """Set to True, from a callback or another thread, it stops the run after the step."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    def __call__(
        self,
        video: FilePath,
        prompt: str = PROMPT,
        *,
        negative_prompt: str = NEGATIVE_PROMPT,
        seed: int | None = None,
        num_inference_steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        embeddings: Embeddings | FilePath | None = None,
        save_path: FilePath | None = None,
        replace_audio: bool = False,
        metadata: bool = True,
        on_step: OnStep | None = None,
    ) -> SoundResult:
        """Make a sound for a video.

        Args:
            video: a file of a second or more; its first 12 seconds, whole ones, get a sound.
            prompt, negative_prompt: what the sound should be like, and unlike. Not used with `embeddings`.
            seed: 0 to 2^63 - 1; drawn if None, and reported in the result. The same seed, embeddings and kind of device
                give the same sound.
            num_inference_steps: 1 to 1000.
            guidance_scale: 1 to 100, how far from the negative prompt; 1 is without guidance.
            embeddings: what the encoder would give, or a file of it; the encoder is not loaded then.
            save_path: .mp4, .mov or .mkv for the video with its sound; None writes nothing. It may be `video` itself.
            replace_audio: allow a file without the sound track that the video has.
            metadata: write the record of the sound into the file, beside that of the video.
            on_step: called after each step with the number of steps done, their total (one more than
                `num_inference_steps`) and the latents `[1, 4, 64, columns / 8]`; returning False stops the run.

        Raises:
            ValueError: an argument is not what it may be, or the encoder is needed and nobody has vouched for its code;
                no model has run.
            UnreadableVideoError: the file is not a video, or has no picture.
            FileNotFoundError, CheckpointError: the encoder is needed, and missing or not what it should be.
            DecodeError: the weights give values that are not finite.
            StoppedError: `on_step` or `interrupt` stopped the run; nothing was written.
            VideoError: the file could not be written; the message says in which file the sound is.
        """
        request = sound_request_of(
            video,
            prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            embeddings=embeddings,
            save_path=save_path,
            replace_audio=replace_audio,
            metadata=metadata,
        )
        return self.run(request, on_step=on_step)

    def run(self, request: SoundRequest, *, on_step: OnStep | None = None) -> SoundResult:
        """Make what a checked request asks for.

        Args:
            request: of `sound_request_of`.
            on_step: as in a call.

        Raises:
            As a call.
        """
        parts = self._parts
        devices = {parts.unet.device, parts.vae.device} | ({parts.encoder.device} if parts.encoder else set())
        clock = Clock(frozenset(devices))
        with self._alone():
            self._interrupt = False  # not before: until the lock is there, it is another run's
            known = self._known(request)
            with clock.stage("encode"):
                embeddings = known or self.encode(request.clip, request.prompt or "", request.negative_prompt or "")
            generator = torch.Generator().manual_seed(request.seed)
            with clock.stage("sample"):
                latents = self._sample(request, embeddings, generator, on_step)
            with clock.stage("decode"):
                picture = decode(parts.vae, latents)
            with clock.stage("waveform"):
                waveform = waveform_of(picture, generator, device=parts.vae.device)
            if request.path is not None:
                with clock.host_stage("write"):
                    write_with_sound(request.clip, waveform, request.path, comment=self._comment(request))
        return SoundResult(
            seed=request.seed,
            timings=clock.total(),
            peak_memory=clock.peak_memory,
            waveform=waveform,
            sample_rate=SAMPLE_RATE,
            spectrogram=picture,
            path=request.path,
        )

    def encode(self, clip: Clip, prompt: str, negative_prompt: str) -> Embeddings:
        """Ask the encoder for both halves, and keep what it says if there is a cache.

        Args:
            clip: of `clip.clip_of`.
            prompt, negative_prompt: as in a call.

        Raises:
            ValueError: there is no encoder, or nobody has vouched for its code.
            FileNotFoundError, CheckpointError: it is missing or not what it should be.
        """
        encoder = self._checked_encoder()
        with self._alone():
            frames = read_frames(clip)
            positive = encoder(frames, prompt)
            negative = encoder(torch.zeros_like(frames), negative_prompt)
        embeddings = embeddings_of(negative, positive)
        if self._parts.cache is not None:
            self._parts.cache.put(embeddings, clip.mark, prompt, negative_prompt)
        return embeddings

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One call at a time, which does not see what the caller has set in PyTorch."""
        with self._lock, isolated(), torch.inference_mode():
            yield

    def _checked_encoder(self) -> EncoderSource:
        encoder = self._parts.encoder
        if encoder is None:
            raise ValueError("embeddings=None: this pipeline has no encoder; allowed are embeddings or a file of them")
        encoder.check()
        return encoder

    def _known(self, request: SoundRequest) -> Embeddings | None:
        """Embeddings that are there; None if the encoder is to be asked, and may be."""
        known = request.known_embeddings(self._parts.cache)
        if known is None:
            self._checked_encoder()
        return known

    def _sample(
        self, request: SoundRequest, embeddings: Embeddings, generator: torch.Generator, on_step: OnStep | None
    ) -> Tensor:
        scheduler = make_scheduler(self._parts.scheduler, request.steps)
        total = len(scheduler.timesteps)

        def watch(index: int, latents: Tensor) -> tuple[bool, None]:
            stopped = on_step is not None and on_step(index + 1, total, latents) is False
            return not (stopped or self._interrupt), None

        rows = slice(None) if request.guidance_scale > 1 else slice(1, None)
        columns = 100 * request.clip.seconds // COLUMNS * COLUMNS
        description = f"sampling sound, seed {request.seed}"
        with Steps(total, team=Ranks(), watch=watch, description=description, progress=self._parts.progress) as steps:
            latents = sample(
                self._parts.unet,
                scheduler,
                first_noise(columns // COMPRESSION, generator),
                text=embeddings.text[rows],
                video=embeddings.video[rows],
                guidance_scale=request.guidance_scale,
                on_step=steps,
            )
        if not latents.isfinite().all():
            raise DecodeError(NOT_FINITE)
        return latents

    def _comment(self, request: SoundRequest) -> str | None:
        """Of the new file: the record of the sound beside that of the video."""
        if not request.metadata:
            return None
        encoder = self._parts.encoder
        record = SoundRecord(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            seconds=request.clip.seconds,
            encoder=None if request.embeddings is not None or encoder is None else encoder.mark,
            origin=self._parts.origin,
        )
        try:
            before = read_comment(request.clip.path)
        except UnicodeError:
            before = None
        return record.beside(before)
