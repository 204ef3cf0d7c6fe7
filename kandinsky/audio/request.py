"""What a call asks for: arguments to a `SoundRequest`, checked once and before a model runs."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from kandinsky.audio.clip import Clip, clip_of
from kandinsky.audio.embeddings import EmbeddingCache, Embeddings, read_embeddings
from kandinsky.audio.mux import check_save_path
from kandinsky.errors import shown
from kandinsky.request import MAX_SEED
from kandinsky.user_files.paths import user_path
from kandinsky.video_shape import as_int

PROMPT = "clean. clear. good quality."
NEGATIVE_PROMPT = "hissing noise. drumming rythm. saying. poor quality."
"""The published defaults, as they are spelt there."""
STEPS, GUIDANCE_SCALE = 50, 8.0
MAX_STEPS, MAX_GUIDANCE = 1000, 100.0
FilePath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class SoundRequest:
    """One sound.

    Args:
        clip: the video.
        prompt, negative_prompt: None where embeddings are given.
        seed, steps, guidance_scale: of the sampler; a scale of 1 is without guidance.
        embeddings: given ones; None asks the encoder.
        path: of the video with its sound; None writes nothing.
        metadata: whether the record goes into the file.
    """

    clip: Clip
    prompt: str | None
    negative_prompt: str | None
    seed: int
    steps: int
    guidance_scale: float
    embeddings: Embeddings | None
    path: Path | None
    metadata: bool

    def known_embeddings(self, cache: EmbeddingCache | None) -> Embeddings | None:
        """Those that were given, or are kept; None if the encoder has to be asked."""
        if self.embeddings is not None or cache is None:
            return self.embeddings
        assert self.prompt is not None
        assert self.negative_prompt is not None
        return cache.get(self.clip.mark, self.prompt, self.negative_prompt)


def sound_request_of(
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
) -> SoundRequest:
    """The request that the arguments of a call mean; `Kandinsky4V2APipeline.__call__` explains them.

    Raises:
        ValueError: an argument is not what it may be; the message names it, its value and what is allowed.
        UnreadableVideoError: the file is not a video, or has no picture.
    """
    for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if not isinstance(text, str):
            raise ValueError(f"{name}={shown(text)}: allowed is a string")
    for name, flag in (("replace_audio", replace_audio), ("metadata", metadata)):
        if not isinstance(flag, bool):
            raise ValueError(f"{name}={shown(flag)}: allowed are True and False")
    steps = _whole("num_inference_steps", num_inference_steps, 1, MAX_STEPS)
    seed = secrets.randbelow(MAX_SEED) if seed is None else _whole("seed", seed, 0, MAX_SEED)
    scale = _guidance(guidance_scale)
    if embeddings is not None and not isinstance(embeddings, Embeddings):
        embeddings = read_embeddings(user_path(embeddings, "embeddings"))
    path = None if save_path is None else user_path(save_path, "save_path")
    clip = clip_of(user_path(video, "video"))
    if path is not None:
        check_save_path(path, clip, replace_audio=replace_audio)
    is_given = embeddings is not None
    return SoundRequest(
        clip=clip,
        prompt=None if is_given else prompt,
        negative_prompt=None if is_given else negative_prompt,
        seed=seed,
        steps=steps,
        guidance_scale=scale,
        embeddings=embeddings,
        path=path,
        metadata=metadata,
    )


def _whole(name: str, value: object, low: int, high: int) -> int:
    number = as_int(name, value, f"{low} to {high}")
    if not low <= number <= high:
        raise ValueError(f"{name}={value!r}: allowed is {low} to {high}")
    return number


def _guidance(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= MAX_GUIDANCE:
        return float(value)
    raise ValueError(f"guidance_scale={shown(value)}: allowed is 1 (none) to {MAX_GUIDANCE:g}")
