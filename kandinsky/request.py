"""What a call asks for, checked before a model runs.

One call may make several videos: `bs` of each prompt, with consecutive seeds. Each is a `Job` of its own, so that it
equals the one made alone.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kandinsky.video_io import IMAGE_ENDINGS, VIDEO_ENDINGS, check_target
from kandinsky.video_shape import VideoShape, as_int

MAX_SEED = 2**63 - 1
MAX_VIDEOS = 10_000
"""Of one call: more is a slip of the keyboard, and its jobs would fill the memory."""


@dataclass(frozen=True)
class Job:
    """One video or image: `path` is None where frames are returned instead of written."""

    prompt: str
    seed: int
    path: Path | None


@dataclass(frozen=True)
class Request:
    """All jobs of one call; they share a shape."""

    jobs: tuple[Job, ...]
    shape: VideoShape


def check_request(
    text: str | Sequence[str],
    *,
    save_path: str | os.PathLike[str] | None,
    bs: int,
    shape: VideoShape,
    seed: int | None,
) -> Request:
    """Jobs of a call.

    Args:
        text: one prompt or several.
        save_path: where to write; None where frames are returned.
        bs: videos for each prompt.
        seed: of the first job, the next ones count up; drawn if None.

    Raises:
        ValueError: an argument is not what it may be.
    """
    prompts = _check_prompts(text)
    count = as_int("bs", bs, "1 and more")
    if count < 1:
        raise ValueError(f"bs={bs!r}: allowed is 1 and more")
    total = count * len(prompts)
    if total > MAX_VIDEOS:
        raise ValueError(f"bs={bs!r} of {len(prompts)} prompts: allowed are {MAX_VIDEOS} videos a call")
    first = secrets.randbelow(MAX_SEED - total) if seed is None else _check_seed(seed, total)
    endings = IMAGE_ENDINGS if shape.is_image else VIDEO_ENDINGS
    path = None if save_path is None else check_target(save_path, endings)
    if path is not None and total > 1:
        check_target(path.with_name(_numbered_name(path, total - 1)), endings)  # the longest name
    jobs = (
        Job(prompt, first + index, _numbered(path, index, total))
        for index, prompt in enumerate(prompt for prompt in prompts for _ in range(count))
    )
    return Request(tuple(jobs), shape)


def _check_prompts(text: object) -> list[str]:
    prompts = [text] if isinstance(text, str) else list(text) if isinstance(text, list | tuple) else []
    wrong = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if not prompts or wrong:
        shown = wrong[0] if wrong else text
        raise ValueError(f"text={shown!r}: allowed is a string, or a list of one or more strings")
    for prompt in prompts:
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ValueError(f"text={prompt!r}: is not valid Unicode: it has half of a surrogate pair")
    return prompts


def _check_seed(seed: object, total: int) -> int:
    value = as_int("seed", seed, f"0 to {MAX_SEED}")
    if not 0 <= value <= MAX_SEED - (total - 1):
        several = f" ({total} videos count up from it)" if total > 1 else ""
        raise ValueError(f"seed={seed!r}: allowed is 0 to {MAX_SEED - (total - 1)}{several}")
    return value


def _numbered(path: Path | None, index: int, total: int) -> Path | None:
    return path if path is None or total == 1 else path.with_name(_numbered_name(path, index))


def _numbered_name(path: Path, index: int) -> str:
    return f"{path.stem}-{index}{path.suffix}"
