"""A job: what a client asked for, and what has become of it. Values only; `store` keeps them."""

import dataclasses
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kandinsky.config import ModelSet
from kandinsky.output.options import OutputOptions
from kandinsky.request import Request, request_of

if TYPE_CHECKING:
    from kandinsky.output.inputs import Inputs

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "in_progress", "completed", "failed", "cancelled")
OPEN: tuple[Status, ...] = ("queued", "in_progress")
"""States of a job that is still to be made."""
Kind = Literal["video", "image"]
ID = re.compile(r"(video|image)_[0-9a-f]{24}")
"""Of a job, and of its folder; see `new_id`."""
UPLOAD = re.compile(r"upload_[0-9a-f]{24}")
"""Of a folder with files of a job to come."""


def new_id(kind: Literal["video", "image", "upload"]) -> str:
    """One that nobody guesses."""
    return f"{kind}_{secrets.token_hex(12)}"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a client asked for, checked: the arguments of a call, with a seed and an ending in place of a path.

    Args:
        inputs: files in the job's own folder, by the arguments that they are for: image, last_image, video, mask.
        overlap: of a video that is gone on with: seconds that each piece knows of what came before; None otherwise.
            `time_length` is then what is new, and `stitched` all of it.
        source: id of the job that it was made from.
        loras: weight of each LoRA that its worker has; None leaves them to the server's own.
    """

    text: str
    seed: int
    time_length: int
    width: int
    height: int
    ending: str
    fps: int | None = None
    crf: int | None = None
    codec: str | None = None
    metadata: bool = True
    interpolate: int | None = None
    interpolate_with: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    strength: float | None = None
    fit: str | None = None
    overlap: int | None = None
    stitched: int | None = None
    source: str | None = None
    loras: Mapping[str, float] | None = None

    @property
    def kind(self) -> Kind:
        """An image is a video of no seconds."""
        return "image" if self.time_length == 0 else "video"

    @property
    def file_name(self) -> str:
        """Of the result in the job's own folder; nothing in it is the client's but the ending, which is from a list."""
        return f"{self.kind}{self.ending}"

    def to_json(self) -> str:
        """One line without what was not asked for."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        if not self.inputs:
            del given["inputs"]  # while no LoRAs are others than the server's
        return json.dumps(given, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Asked":
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def request(self, folder: Path, *, model_set: ModelSet, sized: bool = True, timed: bool = True) -> Request:
        """The request of the pipeline that makes it in `folder`, where its inputs are.

        Args:
            sized, timed: size and length are as they are here; else they are chosen by the inputs.

        Raises:
            ValueError: the model set does not allow it, or an input cannot be used.
        """
        return request_of(
            self.text,
            folder / self.file_name,
            time_length=self.time_length if timed else None,
            width=self.width if sized else None,
            height=self.height if sized else None,
            seed=self.seed,
            model_set=model_set,
            options=OutputOptions(
                type="file", **self._options, interpolate=self.interpolate, interpolate_with=self.interpolate_with
            ),
            inputs=self._inputs_in(folder) if self.inputs else None,
        )

    def extension(self, folder: Path, *, sized: bool = True) -> dict[str, Any]:
        """Arguments of `pipe.extend` that go on from its video in `folder`; see `request`."""
        return {
            "video": folder / self.inputs["video"],
            "text": self.text,
            "save_path": folder / self.file_name,
            "seconds": self.time_length,
            "overlap": self.overlap,
            "width": self.width if sized else None,
            "height": self.height if sized else None,
            "seed": self.seed,
            "fit": self.fit,
            **self._options,
        }

    @property
    def _options(self) -> dict[str, Any]:
        return {"fps": self.fps, "crf": self.crf, "codec": self.codec, "metadata": self.metadata}

    def _inputs_in(self, folder: Path) -> "Inputs":
        from kandinsky.output.inputs import Inputs  # with torch, which the server's own process does without

        files = {name: folder / file for name, file in self.inputs.items()}
        return Inputs(**files, strength=self.strength, fit=self.fit)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of the store.

    Args:
        number: place in the order of arrival; it never comes twice, whatever the clock does.
        id: by which a client knows it.
        owner: name of the key that it was posted with.
        created, started, finished: seconds since 1970 of the server's clock.
        kills: workers that died while they held it.
        cancelled: somebody asked to stop it; it still runs until its worker says that it stopped.
        code, reason: why it failed.
        timings: seconds of each stage, once it is completed.
        size: bytes of its file.
        downloaded: its file was fetched by its owner.
    """

    number: int
    id: str
    owner: str
    status: Status
    asked: Asked
    created: float
    started: float | None = None
    finished: float | None = None
    kills: int = 0
    cancelled: bool = False
    code: str | None = None
    reason: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    size: int = 0
    downloaded: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it is still to be made."""
        return self.status in OPEN
