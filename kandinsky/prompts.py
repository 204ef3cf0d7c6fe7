"""A file of prompts to items of a batch, all checked before a model is loaded.

`.txt`: a prompt a line. `.jsonl`: a JSON object a line, with `text` and any of the other `KEYS`, which win over the
batch's own settings. Blank lines are skipped. An item's file is named by its place in the file (`0001.mp4`), never by
its prompt, unless its line gives a `save_path`: a plain file name, so that nothing is written outside of the folder.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kandinsky.config import FLASH_512, ModelSet
from kandinsky.request import MAX_SEED, Job, check_request
from kandinsky.video_io import IMAGE_ENDINGS, VIDEO_ENDINGS
from kandinsky.video_shape import VideoShape, as_int

KEYS = ("text", "seed", "time_length", "width", "height", "save_path")
"""What a line may say: the arguments of a call."""
DEFAULTS: Mapping[str, object] = {"seed": None, "time_length": 12, "width": 512, "height": 512}
MAX_NAME_BYTES = 200
"""File systems allow 255; the rest is for the endings of files that are kept beside the video."""


@dataclass(frozen=True)
class Item:
    """One video or image of a batch.

    Args:
        number: place among the items, from 1.
        job: with a path inside of the batch's folder, relative to it.
        shape: of the video.
        asked: what was asked for, as in the report: it tells whether a finished file is the one wanted.
    """

    number: int
    job: Job
    shape: VideoShape
    asked: Mapping[str, object]


def read_prompts(
    path: str | os.PathLike[str], settings: Mapping[str, object], *, model_set: ModelSet = FLASH_512
) -> tuple[Item, ...]:
    """Items of a `.txt` or `.jsonl` file; `settings` as for `make_items`.

    Raises:
        ValueError: names the file, the line, the argument and what is allowed.
    """
    file = Path(path)
    if file.suffix.lower() not in (".txt", ".jsonl"):
        raise ValueError(f"prompts={str(file)!r}: must end with .txt (a prompt a line) or .jsonl (an object a line)")
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompts={str(file)!r} is not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ValueError(f"prompts={str(file)!r} cannot be read: {error.strerror}") from error
    # Not splitlines(): it also cuts at characters that may stand inside of a prompt.
    lines = {f"{file.name}, line {n}": line.strip() for n, line in enumerate(content.split("\n"), 1) if line.strip()}
    as_object = _parse if file.suffix.lower() == ".jsonl" else _plain
    return _items([(where, as_object(where, line)) for where, line in lines.items()], settings, model_set)


def make_items(
    prompts: Sequence[str | Mapping[str, object]], settings: Mapping[str, object], *, model_set: ModelSet = FLASH_512
) -> tuple[Item, ...]:
    """Items of a list of prompts, or of mappings with the keys of a JSONL line.

    Args:
        settings: for lines that do not say otherwise: `seed` of the first item, the next ones count up (None draws
            one for each), `time_length`, `width` and `height`.

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
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}") from error


def _items(lines: list[tuple[str, object]], settings: Mapping[str, object], model_set: ModelSet) -> tuple[Item, ...]:
    unknown = [key for key in settings if key not in DEFAULTS]
    if unknown:
        raise ValueError(f"setting {unknown[0]!r} is unknown; allowed are {', '.join(DEFAULTS)}")
    if not lines:
        raise ValueError("no prompts: every line is blank")
    items, seen = [], {}
    for number, (where, line) in enumerate(lines, 1):
        try:
            item = _item(number, line, {**DEFAULTS, **settings}, model_set)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        name = str(item.job.path).casefold()
        if name in seen:
            raise ValueError(f"{where}: save_path={str(item.job.path)!r} is also that of {seen[name]}")
        seen[name] = where
        items.append(item)
    return tuple(items)


def _item(number: int, line: object, settings: Mapping[str, object], model_set: ModelSet) -> Item:
    if not isinstance(line, Mapping):
        raise ValueError(f"{line!r}: allowed is an object with the keys {', '.join(KEYS)}")
    unknown = [key for key in line if key not in KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed are {', '.join(KEYS)}")
    if not isinstance(line.get("text"), str):
        raise ValueError(f"text={line.get('text')!r}: allowed is a string")
    asked = {**settings, **line}
    if "seed" not in line and asked["seed"] is not None:
        asked["seed"] = as_int("seed", asked["seed"], f"0 to {MAX_SEED}") + number - 1
    shape = VideoShape.from_request(asked["time_length"], asked["height"], asked["width"], model_set=model_set)
    (job,) = check_request(line["text"], save_path=None, bs=1, shape=shape, seed=asked["seed"]).jobs
    asked["save_path"] = _name(line["save_path"], shape) if "save_path" in line else _numbered(number, shape)
    numbers = {"time_length": shape.seconds, "width": shape.width, "height": shape.height}
    seed = None if asked["seed"] is None else job.seed
    return Item(number, Job(job.prompt, job.seed, Path(asked["save_path"])), shape, asked | numbers | {"seed": seed})


def _numbered(number: int, shape: VideoShape) -> str:
    return f"{number:04d}{_endings(shape)[0]}"


def _endings(shape: VideoShape) -> tuple[str, ...]:
    return IMAGE_ENDINGS if shape.is_image else VIDEO_ENDINGS


def _name(given: object, shape: VideoShape) -> str:
    """The name of an item's file, checked.

    Raises:
        ValueError: it is not a plain file name with a right ending.
    """
    if not isinstance(given, str) or not _is_plain(given):
        what = f"a file name inside of the folder, without separators, of at most {MAX_NAME_BYTES} bytes"
        raise ValueError(f"save_path={given!r}: allowed is {what}")
    if Path(given).suffix.lower() not in _endings(shape):
        raise ValueError(f"save_path={given!r}: must end with one of {', '.join(_endings(shape))}")
    return given


def _is_plain(name: str) -> bool:
    bare = name.isprintable() and not set(name) & set('/\\:*?"<>|') and not name.startswith((".", "-"))
    return bare and len(name.encode()) <= MAX_NAME_BYTES
