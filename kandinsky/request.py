"""What a call asks for: arguments to a `Request`, checked once and before a model runs.

One call may make several videos: `bs` of each prompt, with consecutive seeds. Each is a `Job` of its own, so that it
equals the one made alone. `request_of` looks at the arguments alone; `check_targets` asks the file system of the
process that will write.
"""

import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from kandinsky.config import FLOAT32_MAX, ModelSet
from kandinsky.errors import shown
from kandinsky.output.options import Output, OutputOptions, check_prompt_fits, output_of
from kandinsky.output.paths import check_target
from kandinsky.output.video import check_encoder
from kandinsky.video_shape import VideoShape, as_int

if TYPE_CHECKING:  # with torch, which a server's own process does without
    from kandinsky.known.given import Given
    from kandinsky.output.inputs import Inputs
    from kandinsky.progress import AfterStep, OnStep

MAX_SEED = 2**63 - 1
MAX_VIDEOS = 10_000
"""Of one call: more is a slip of the keyboard, and its jobs would fill the memory."""
DEFAULT_PATH = "./test.mp4"
"""The published default of `save_path`. Of an image, whose ending it does not have, it means that no path was given."""
NO_OPTIONS = OutputOptions()


class Extras(TypedDict, total=False):
    """Arguments of a call that may be given to each kind of it, as type checkers see them."""

    fps: int | None
    crf: int | None
    codec: str | None
    metadata: bool
    interpolate: int | None
    interpolate_with: str | None
    on_step: "OnStep | None"
    callback_on_step_end: "AfterStep | None"
    image: object
    last_image: object
    video: object
    strength: float | None
    mask: object
    fit: str | None


class Sized(Extras, total=False):
    """The same, and what is made."""

    time_length: int | None
    width: int | None
    height: int | None
    seed: int | None


@dataclass(frozen=True)
class Job:
    """One video or image: `path` is None where frames are returned instead of written.

    `loras` has the weight of each LoRA that is to be merged, of those that the pipeline has; None leaves them as they
    are.
    """

    prompt: str
    seed: int
    path: Path | None
    loras: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Request:
    """All jobs of one call; they share a shape, a kind of output, and what is given besides the text."""

    jobs: tuple[Job, ...]
    shape: VideoShape
    output: Output
    given: "Given | None" = None

    def without_pixels(self) -> "Request":
        """For ranks that do not encode; pixels are large."""
        return self if self.given is None else replace(self, given=self.given.elsewhere())


def request_of(
    text: str | Sequence[str],
    save_path: str | os.PathLike[str] | None = DEFAULT_PATH,
    bs: int = 1,
    time_length: int | None = None,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    return_frames: bool = False,
    *,
    model_set: ModelSet,
    options: OutputOptions = NO_OPTIONS,
    inputs: "Inputs | None" = None,
    loras: Mapping[str, float] | None = None,
) -> Request:
    """The request that the arguments of a call mean; `Kandinsky4T2VPipeline.__call__` explains them.

    Args:
        model_set: what the weights were trained for.
        options: what is wanted back.
        inputs: pictures and videos, which are read here.
        loras: see `Job`.

    Raises:
        ValueError: an argument is not what it may be; the message names it, its value and what is allowed.
    """
    size = (time_length, width, height)
    if inputs is None:
        shape, given = VideoShape.from_request(*size, model_set=model_set), None
    else:
        from kandinsky.output.inputs import shape_and_given

        shape, given = shape_and_given(inputs, *size, model_set=model_set)
    prompts = prompts_of(text)
    count = as_int("bs", bs, "1 and more")
    if count < 1:
        raise ValueError(f"bs={bs!r}: allowed is 1 and more")
    total = count * len(prompts)
    if total > MAX_VIDEOS:
        raise ValueError(f"bs={bs!r} of {len(prompts)} prompts: allowed are {MAX_VIDEOS} videos a call")
    first = secrets.randbelow(MAX_SEED - total) if seed is None else _seed_of(seed, total)
    if shape.is_image and save_path == DEFAULT_PATH and options.type != "file":
        save_path = None
    output, path = output_of(
        save_path, options, return_frames=return_frames, is_image=shape.is_image, model_fps=shape.fps
    )
    if path is not None and output.metadata:
        for prompt in prompts:
            check_prompt_fits(path, prompt)
    check_loras(loras)
    jobs = (
        Job(prompt, first + index, _numbered(path, index, total), loras)
        for index, prompt in enumerate(prompt for prompt in prompts for _ in range(count))
    )
    return Request(tuple(jobs), shape, output, given)


def check_loras(loras: object, known: Collection[str] | None = None) -> None:
    """Refuse what is no mapping from names of LoRAs to weights.

    Args:
        loras: as a line of a batch or a client of a server has it: names alone, no paths. None is nothing.
        known: the names that there are, where they are known.

    Raises:
        ValueError: names the LoRA and what is allowed.
    """
    if loras is None:
        return
    if not isinstance(loras, Mapping):
        raise ValueError(f"loras={shown(loras)}: allowed is an object with a weight for each name, or null")
    for name, weight in loras.items():
        if known is not None and name not in known:
            raise ValueError(f"loras: {shown(name)} is unknown; allowed are {', '.join(map(repr, known)) or 'none'}")
        if not is_weight(weight):
            raise ValueError(f"loras: weight of {name}={shown(weight)}: allowed is a finite number of float32")


def is_weight(value: object) -> bool:
    """Whether low-rank weights may be multiplied by it, in the float32 in which they are added."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT32_MAX


def check_targets(request: Request) -> None:
    """Look whether the files of a request can be written by this process.

    Raises:
        ValueError: a folder is missing or cannot be written, a name is too long, or that of a folder or of what is
            given, or there is no encoder.
    """
    for path in (job.path for job in request.jobs if job.path is not None):
        check_target(path if path.suffix else f"{path}/", is_image=request.shape.is_image)
        if request.given is not None:
            from kandinsky.output.inputs import check_no_input

            check_no_input(path, request.given.files)
    if request.output.codec is not None:
        check_encoder(request.output.codec)


def prompts_of(text: object) -> list[str]:
    """The prompts of a call's `text`.

    Raises:
        ValueError: it is neither a string nor a list of them.
    """
    prompts = [text] if isinstance(text, str) else list(text) if isinstance(text, list | tuple) else []
    wrong = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if not prompts or wrong:
        raise ValueError(
            f"text={shown(text if not wrong else wrong[0])}: allowed is a string, or a list of one or more strings"
        )
    for prompt in prompts:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text={shown(prompt)}: allowed is text that UTF-8 can hold ({error.reason})") from None
    return prompts


def _seed_of(seed: object, total: int) -> int:
    value = as_int("seed", seed, f"0 to {MAX_SEED}")
    if not 0 <= value <= MAX_SEED - (total - 1):
        several = f" ({total} videos count up from it)" if total > 1 else ""
        raise ValueError(f"seed={seed!r}: allowed is 0 to {MAX_SEED - (total - 1)}{several}")
    return value


def _numbered(path: Path | None, index: int, total: int) -> Path | None:
    return path if path is None or total == 1 else path.with_name(f"{path.stem}-{index}{path.suffix}")
