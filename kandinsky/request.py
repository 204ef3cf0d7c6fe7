"""What a call asks for, checked before a model runs.

One call may make several videos: `bs` of each prompt, with consecutive seeds. Each is a `Job` of its own, so that it
equals the one made alone.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kandinsky.output import Output, OutputOptions, check_output, check_prompt_fits
from kandinsky.target import check_target
from kandinsky.video_shape import VideoShape, as_int

MAX_SEED = 2**63 - 1
MAX_VIDEOS = 10_000
"""Of one call: more is a slip of the keyboard, and its jobs would fill the memory."""
NO_OPTIONS = OutputOptions()


@dataclass(frozen=True)
class Job:
    """One video or image: `path` is None where frames are returned instead of written."""

    prompt: str
    seed: int
    path: Path | None


@dataclass(frozen=True)
class Request:
    """All jobs of one call; they share a shape and a kind of output."""

    jobs: tuple[Job, ...]
    shape: VideoShape
    output: Output


def check_request(
    text: str | Sequence[str],
    *,
    save_path: str | os.PathLike[str] | None,
    bs: int,
    shape: VideoShape,
    seed: int | None,
    options: OutputOptions = NO_OPTIONS,
) -> Request:
    """Jobs of a call, whose targets can be written.

    Args:
        text: one prompt or several.
        save_path: where to write, if a file is wanted.
        bs: videos for each prompt.
        seed: of the first job, the next ones count up; drawn if None.
        options: what is wanted back.

    Raises:
        ValueError: an argument is not what it may be.
    """
    request = plan_request(text, save_path=save_path, bs=bs, shape=shape, seed=seed, options=options)
    paths = [job.path for job in request.jobs if job.path is not None]
    # Of files, the last one has the longest name; each folder must be new.
    for path in paths if paths and not paths[0].suffix else paths[-1:]:
        check_target(path if path.suffix else f"{path}/", is_image=shape.is_image)
    return request


def plan_request(
    text: str | Sequence[str],
    *,
    save_path: str | os.PathLike[str] | None,
    bs: int,
    shape: VideoShape,
    seed: int | None,
    options: OutputOptions = NO_OPTIONS,
) -> Request:
    """As `check_request`, without a look at the file system: arguments and results are the same."""
    prompts = _check_prompts(text)
    count = as_int("bs", bs, "1 and more")
    if count < 1:
        raise ValueError(f"bs={bs!r}: allowed is 1 and more")
    total = count * len(prompts)
    if total > MAX_VIDEOS:
        raise ValueError(f"bs={bs!r} of {len(prompts)} prompts: allowed are {MAX_VIDEOS} videos a call")
    first = secrets.randbelow(MAX_SEED - total) if seed is None else _check_seed(seed, total)
    output, path = check_output(save_path, options, is_image=shape.is_image, model_fps=shape.fps)
    if path is not None and output.metadata:
        for prompt in prompts:
            check_prompt_fits(path, prompt)
    jobs = (
        Job(prompt, first + index, _numbered(path, index, total))
        for index, prompt in enumerate(prompt for prompt in prompts for _ in range(count))
    )
    return Request(tuple(jobs), shape, output)


def options_of_call(options: OutputOptions, *, return_frames: object) -> OutputOptions:
    """`options` with the published argument, which means `output_type="pil"`.

    Raises:
        ValueError: they contradict each other.
    """
    if not return_frames:
        return options
    if options.type not in (None, "pil"):
        raise ValueError(f"output_type={options.type!r}: with return_frames=True allowed are None and 'pil'")
    return replace(options, type="pil")


def _check_prompts(text: object) -> list[str]:
    prompts = [text] if isinstance(text, str) else list(text) if isinstance(text, list | tuple) else []
    wrong = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if not prompts or wrong:
        shown = wrong[0] if wrong else text
        raise ValueError(f"text={shown!r}: allowed is a string, or a list of one or more strings")
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text={prompt!r}: allowed is text that UTF-8 can hold ({error})") from None
    return prompts


def _check_seed(seed: object, total: int) -> int:
    value = as_int("seed", seed, f"0 to {MAX_SEED}")
    if not 0 <= value <= MAX_SEED - (total - 1):
        several = f" ({total} videos count up from it)" if total > 1 else ""
        raise ValueError(f"seed={seed!r}: allowed is 0 to {MAX_SEED - (total - 1)}{several}")
    return value


def _numbered(path: Path | None, index: int, total: int) -> Path | None:
    return path if path is None or total == 1 else path.with_name(f"{path.stem}-{index}{path.suffix}")
