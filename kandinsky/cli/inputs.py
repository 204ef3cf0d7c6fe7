"""Pictures and videos that a command is given, and those that a record asks for again."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kandinsky.cli.common import file_argument

if TYPE_CHECKING:
    from kandinsky.known.given import Mark
    from kandinsky.output.inputs import Inputs
    from kandinsky.output.record import Record

FILES = {
    "image": "picture that is the first frame",
    "last_image": "picture that the last frames show",
    "video": "video that is changed, by --strength or --mask",
    "mask": "picture or video, white where --video or --image is made anew",
}


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """`--image` and the like."""
    for name, said in FILES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="FILE", type=file_argument, help=said)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """`--image` and the like, and how they are used."""
    add_file_arguments(parser)
    parser.add_argument(
        "--strength", type=float, help="how much of --video changes: 1, 0.75, 0.5, or 0.25 for hardly at all"
    )
    parser.add_argument(
        "--fit", help="how pictures get to another size: cover (and be cropped), contain (black bars), stretch"
    )


def input_settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Those that were given."""
    every = {name: getattr(parsed, name) for name in (*FILES, "strength", "fit")}
    return {name: value for name, value in every.items() if value is not None}


def inputs_again(record: "Record", parsed: argparse.Namespace, beside: Path) -> "Inputs":
    """The inputs that a record names: as the command says where they are now, else in this folder or in `beside`.

    Raises:
        ValueError: one cannot be found; the message says how to name it.
    """
    from kandinsky.output.inputs import Inputs

    given = record.given
    if given is None:
        return Inputs()
    found = {name: _found(name, entry, getattr(parsed, name, None), beside) for name, entry in given.inputs.items()}
    strength = given.strength if "mask" not in found or given.strength != 1 else None
    return Inputs(**found, strength=strength, fit=given.fit)


def _found(name: str, entry: Mapping[str, str | None], said: str | None, beside: Path) -> str:
    file = entry.get("name")
    places = [said] if said is not None else [str(folder / file) for folder in (Path(), beside)] if file else []
    for place in places:
        if Path(place).is_file():
            return place
    what = f"{file!r}" if file else "given as pixels"
    raise ValueError(
        f"it was made with {name} {what} (sha256 of its pixels {str(entry.get('sha256'))[:12]}...), which is not here: "
        f"name the file with --{name.replace('_', '-')}"
    )


def check_same(record: "Record", marks: Mapping[str, "Mark"]) -> None:
    """Refuse inputs that are others than those of a record.

    Raises:
        ValueError: names one.
    """
    for name, entry in record.given.inputs.items() if record.given is not None else ():
        if name in marks and marks[name].sha256 != entry.get("sha256"):
            raise ValueError(f"{name} has other pixels than the one that it was made with; name that one")
