"""Finished pieces of an extension, in a folder beside its target while it is unfinished.

`NAME.mp4.pieces/` has `extension.json`, which says what was asked for, and the latents of each finished piece, which
decode to the same frames again. Killed, the same call or `kandinsky resume NAME.mp4.pieces` goes on after them.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kandinsky.atomic import remove, remove_partials, replacing, write_text
from kandinsky.errors import RecordError
from kandinsky.extend.plan import Extension
from kandinsky.output.record import Record

SUFFIX = ".pieces"
FILE = "extension.json"
ASKED = (
    "video",
    "sha256",
    "text",
    "save_path",
    "seconds",
    "overlap",
    "width",
    "height",
    "seed",
    "fit",
    "fps",
    "crf",
    "codec",
    "metadata",
)
"""What it says of a call."""


def folder_of(path: Path) -> Path:
    """Where the pieces of an extension with this target are."""
    return path.with_name(f"{path.name}{SUFFIX}")


def asked_of(extension: Extension) -> dict[str, Any]:
    """What was asked for, as JSON has it: enough to ask for it again."""
    clip, output = extension.source.clip, extension.output
    return {
        "video": None if clip.path is None else str(clip.path.absolute()),
        "sha256": extension.source.mark.sha256,
        "text": extension.prompt,
        "save_path": extension.path.name,
        "seconds": extension.seconds,
        "overlap": extension.overlap,
        "width": extension.source.width,
        "height": extension.source.height,
        "seed": extension.pieces[0].seed,
        "fit": extension.fit,
        "fps": output.fps,
        "crf": output.crf,
        "codec": output.codec,
        "metadata": output.metadata,
    }


class Pieces:
    """The folder of one extension.

    Args:
        extension: what is made.

    Raises:
        ValueError: another extension with the same target is unfinished there.
    """

    def __init__(self, extension: Extension):
        self.folder = folder_of(extension.path)
        self._asked = asked_of(extension)
        self._seeds = [piece.seed for piece in extension.pieces]
        if (self.folder / FILE).exists():
            found = read_asked(self.folder)
            if any(found["asked"].get(name) != value for name, value in self._asked.items() if name != "video"):
                raise ValueError(
                    f"save_path={str(extension.path)!r}: another extension is unfinished there; finish it with "
                    f"`kandinsky resume {shlex.quote(str(self.folder))}`, or remove that folder"
                )

    def check_loras(self, record: Record) -> None:
        """Refuse to go on with other low-rank weights than finished pieces have.

        Raises:
            ValueError: names both.
        """
        if not (self.folder / FILE).exists():
            return
        now, then = (
            _loras(each) for each in (record, Record.from_json(read_asked(self.folder)["record"], self.folder))
        )
        if now != then:
            raise ValueError(f"loras={now}: {self.folder} was begun with {then}; merge those, or remove that folder")

    def begin(self, record: Record, weights: str | None) -> None:
        """Make the folder, if it is not there."""
        self.folder.mkdir(exist_ok=True)
        for seed in self._seeds:
            remove_partials(self._path(seed))
        if not (self.folder / FILE).exists():
            said = {"asked": self._asked, "record": record.to_json(), "weights": weights}
            write_text(self.folder / FILE, json.dumps(said))

    def save(self, seed: int, latents: Tensor) -> None:
        """Keep a finished piece's latents `[T, H, W, C]`."""
        with replacing(self._path(seed)) as path:
            save_file({"latents": latents.cpu().contiguous()}, path)

    def load(self, seed: int) -> Tensor | None:
        """Latents of a piece that is finished.

        Raises:
            RecordError: its file is damaged.
        """
        path = self._path(seed)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                return file.get_tensor("latents")
        except (SafetensorError, OSError) as error:
            raise RecordError(f"{path} is damaged: {error}; remove it, and its piece is made again") from error

    def finished(self) -> list[bool]:
        """Of each piece, whether it is."""
        return [self._path(seed).exists() for seed in self._seeds]

    def discard(self) -> None:
        """The result is in its place."""
        remove(self.folder)

    def _path(self, seed: int) -> Path:
        return self.folder / f"{seed}.safetensors"


def _loras(record: Record) -> dict[str, tuple[str, str]]:
    """Fingerprint and weight of the low-rank weights that a record names."""
    origin = record.origin
    return {} if origin is None else {name: (mark, origin.lora_weights[name]) for name, mark in origin.loras.items()}


def read_asked(folder: Path) -> Mapping[str, Any]:
    """What stands in a folder: `asked`, `record` (JSON), and `weights`, the folder of those that were used.

    Raises:
        RecordError: it is damaged, or no such folder.
    """
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if set(found["asked"]) != set(ASKED) or not isinstance(found["record"], str):
            raise TypeError("not an extension")
        return {"weights": None, **found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{folder} is no folder of an unfinished extension: {error!r}") from error
