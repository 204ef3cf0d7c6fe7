"""A file of prompts to items of a batch, all checked before a model is loaded.

`.txt`: a prompt a line. `.jsonl`: a JSON object a line, with `text` and any of the other `KEYS`, which win over the
batch's own settings. Blank lines are skipped. An item's file is named by its place in the file (`0001.mp4`, with `bs`
`0001-0.mp4` and so on), never by its prompt, unless its line gives a `save_path`: a plain name, so that nothing is
written outside of the folder. Whether anything can be written there is for the batch to find out.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kandinsky.config import ModelSet
from kandinsky.known.given import Given
from kandinsky.output.inputs import FILES as INPUT_FILES
from kandinsky.output.inputs import NO_INPUTS, Inputs, shape_and_given
from kandinsky.output.options import Output, OutputOptions
from kandinsky.output.record import GivenRecord
from kandinsky.request import MAX_SEED, Job, Request, check_loras, request_of
from kandinsky.user_files.lines import parse_json, read_lines
from kandinsky.user_files.paths import user_path
from kandinsky.video_shape import VideoShape, as_int

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "bs": 1,
        "seed": None,
        "time_length": None,
        "width": None,
        "height": None,
        "fps": None,
        "crf": None,
        "codec": None,
        "metadata": True,
        "interpolate": None,
        "interpolate_with": None,
        "loras": None,
    }
)
FILE_OPTIONS = ("fps", "crf", "codec", "metadata", "interpolate", "interpolate_with")
INPUTS = ("image", "last_image", "video", "strength", "mask", "fit")
"""What a call may give besides its text; paths in a line are taken from the folder of its file."""
KEYS = ("text", *DEFAULTS, *INPUTS, "save_path")
"""What a line may say: the arguments of a call that writes files."""
MAX_NAME_BYTES = 200
"""File systems allow 255; the rest is for the endings of files that are kept beside the video."""


@dataclass(frozen=True)
class Item:
    """One video or image of a batch.

    Args:
        number: place among the items, from 1.
        job: with a path inside of the batch's folder, relative to it.
        shape, output: of the file.
        asked: what was asked for, as in the report: it tells whether a finished file is the one wanted.
        inputs: pictures and videos, which are read again when their turn comes: those of a whole batch are many.
    """

    number: int
    job: Job
    shape: VideoShape
    output: Output
    asked: Mapping[str, object]
    inputs: Inputs = field(default=NO_INPUTS, compare=False)  # their pixels' marks are in `asked`

    def given(self, model_set: ModelSet) -> Given | None:
        """Read what is given besides the text.

        Raises:
            ValueError: it cannot be read (any more).
        """
        shape = self.shape
        return shape_and_given(self.inputs, shape.seconds, shape.width, shape.height, model_set=model_set)[1]

    @property
    def given_elsewhere(self) -> Given | None:
        """For a rank that does not encode: whether there is something."""
        return Given.elsewhere() if self.inputs.named else None

    @property
    def name(self) -> str:
        """Of the file, or with a slash at its end of the folder of png frames."""
        return str(self.asked["save_path"])

    def check_made_for(self, model_set: ModelSet) -> None:
        """Refuse a pipeline of another model set than the item was made for, where that matters.

        Raises:
            ValueError: it does not make clips of this size, or would make them of other lengths.
        """
        size = self.shape.seconds, self.shape.width, self.shape.height
        try:
            found = VideoShape.from_request(*size, model_set=model_set)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}; items are made with model_set=pipe.model_set") from error
        if found != self.shape:
            raise ValueError(f"{self.name}: made for another model set; items are made with model_set=pipe.model_set")

    @classmethod
    def of(cls, number: int, job: Job, request: Request, inputs: Inputs, *, drawn: bool) -> "Item":
        """One job of a request that has a path; `drawn` if nobody asked for its seed."""
        assert job.path is not None
        shape, output = request.shape, request.output
        asked = {
            "text": job.prompt,
            "seed": None if drawn else job.seed,
            "time_length": shape.seconds,
            "width": shape.width,
            "height": shape.height,
            "save_path": str(job.path) if job.path.suffix else f"{job.path}/",
            "fps": output.fps,
            "crf": output.crf,
            "codec": output.codec,
            "metadata": output.metadata,
        }
        between = {"interpolate": output.interpolate, "interpolate_with": output.interpolate_with}
        asked |= {name: value for name, value in between.items() if value is not None}  # as in reports of before
        if job.loras is not None:
            asked["loras"] = dict(job.loras)
        if request.given is not None:
            asked["given"] = asdict(GivenRecord.of(request.given))
        return cls(number, job, shape, output, asked, inputs)


def read_prompts(
    path: str | os.PathLike[str], settings: Mapping[str, object], *, model_set: ModelSet
) -> tuple[Item, ...]:
    """Items of a `.txt` or `.jsonl` file; `settings` and `model_set` as for `make_items`.

    Raises:
        ValueError: names the file, the line, the argument and what is allowed.
    """
    file = user_path(path, "prompts")
    if file.suffix.lower() not in (".txt", ".jsonl"):
        raise ValueError(f"prompts={str(file)!r}: must end with .txt (a prompt a line) or .jsonl (an object a line)")
    try:
        content = read_lines(file, name=f"prompts={str(file)!r}")
    except OSError as error:
        raise ValueError(f"prompts={str(file)!r} cannot be read: {error.strerror}") from error
    lines = {f"{file.name}, line {n}": line.strip() for n, line in enumerate(content, 1) if line.strip()}
    as_object = _parse if file.suffix.lower() == ".jsonl" else _plain
    objects = [(where, as_object(where, line)) for where, line in lines.items()]
    return _items(objects, settings, model_set, folder=file.parent)


def make_items(
    prompts: Sequence[str | Mapping[str, object]], settings: Mapping[str, object], *, model_set: ModelSet
) -> tuple[Item, ...]:
    """Items of a list of prompts, or of mappings with the keys of a JSONL line.

    Args:
        settings: any of `DEFAULTS` and `INPUTS`, for lines that do not say otherwise; `seed` is that of the first
            item, the next ones count up (None draws one for each line). `loras` has the names that lines may use, with
            the weights that hold where a line says nothing.
        model_set: of the pipeline that will make them, which tells what they may be and are by default.

    Raises:
        ValueError: names the prompt, the argument and what is allowed.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise ValueError(f"prompts={prompts!r}: allowed is a list of strings or mappings")
    lines = ((f"prompt {n}", {"text": p} if isinstance(p, str) else p) for n, p in enumerate(prompts, 1))
    return _items(list(lines), settings, model_set)


def _plain(_where: str, line: str) -> object:
    return {"text": line}


def _parse(where: str, line: str) -> object:
    try:
        return parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _items(
    lines: list[tuple[str, object]],
    settings: Mapping[str, object],
    model_set: ModelSet,
    *,
    folder: Path | None = None,
) -> tuple[Item, ...]:
    """The items; relative paths in lines are taken from `folder`."""
    unknown = [key for key in settings if key not in (*DEFAULTS, *INPUTS)]
    if unknown:
        raise ValueError(f"setting {unknown[0]!r} is unknown; allowed are {', '.join((*DEFAULTS, *INPUTS))}")
    if not lines:
        raise ValueError("no prompts: every line is blank")
    items: list[Item] = []
    seen: dict[str, str] = {}
    for place, (where, line) in enumerate(lines, 1):
        try:
            named = _located(line, folder)
            items += _items_of_line(named, {**DEFAULTS, **settings}, model_set, place=place, done=len(items))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        for item in items[len(seen) :]:
            name = str(item.job.path)
            if name.casefold() in seen:
                raise ValueError(f"{where}: save_path={name!r} is also that of {seen[name.casefold()]}")
            seen[name.casefold()] = where
    return tuple(items)


def _items_of_line(
    line: object, settings: Mapping[str, Any], model_set: ModelSet, *, place: int, done: int
) -> list[Item]:
    """The items of the line at `place`, which `done` items come before."""
    asked = {**settings, **_checked(line)}
    if "seed" not in line and asked["seed"] is not None:  # type: ignore[operator]  # _checked knows that it is a mapping
        asked["seed"] = as_int("seed", asked["seed"], f"0 to {MAX_SEED}") + done
    given = asked["save_path"] if "save_path" in asked else _name_of(place, asked["time_length"], asked["codec"])
    _check_plain(given)
    options = OutputOptions(type="file", **{name: asked[name] for name in FILE_OPTIONS})
    size = {name: asked[name] for name in ("time_length", "width", "height")}
    inputs = Inputs(**{name: asked[name] for name in INPUTS if asked.get(name) is not None})
    check_loras(asked["loras"], settings["loras"] or ())
    request = request_of(
        asked["text"],
        given,
        asked["bs"],
        seed=asked["seed"],
        model_set=model_set,
        options=options,
        inputs=inputs,
        loras=asked["loras"],
        **size,
    )
    drawn = asked["seed"] is None
    return [Item.of(done + index, job, request, inputs, drawn=drawn) for index, job in enumerate(request.jobs, 1)]


def _located(line: object, folder: Path | None) -> object:
    """A line with its inputs' relative paths taken from a folder."""
    if not isinstance(line, Mapping) or folder is None:
        return line
    return {
        key: str(folder / Path(value).expanduser()) if key in INPUT_FILES and isinstance(value, str) else value
        for key, value in line.items()
    }


def _checked(line: object) -> Mapping[str, Any]:
    if not isinstance(line, Mapping):
        raise ValueError(f"{line!r}: allowed is an object with the keys {', '.join(KEYS)}")
    unknown = [key for key in line if key not in KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed are {', '.join(KEYS)}")
    if not isinstance(line.get("text"), str):
        raise ValueError(f"text={line.get('text')!r}: allowed is a string")
    return line


def _name_of(place: int, time_length: object, codec: object) -> str:
    ending = ".png" if time_length == 0 else ".webm" if codec == "vp9" else ".mp4"
    return f"{place:04d}{ending}"


def _check_plain(given: object) -> None:
    """Refuse what is not a plain name, with a slash at its end or none.

    Raises:
        ValueError: names the argument.
    """
    name = given.removesuffix("/") if isinstance(given, str) else ""
    bare = name.isprintable() and not set(name) & set('/\\:*?"<>|') and not name.startswith((".", "-"))
    if not name or not bare or len(name.encode()) > MAX_NAME_BYTES:
        what = f"a name inside of the folder, without separators, of at most {MAX_NAME_BYTES} bytes"
        raise ValueError(f"save_path={given!r}: allowed is {what}")
