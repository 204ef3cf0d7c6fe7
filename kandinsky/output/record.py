"""How a video was made, as JSON inside of its file: enough to make it again.

It holds no path, no name of a machine and no date: the same call writes the same bytes.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from types import NoneType

import torch

from kandinsky.config import VERSION
from kandinsky.errors import RecordError, shown
from kandinsky.known.given import STRENGTHS, Given
from kandinsky.output.record_fields import check_types, known_fields

DTYPES = ("float32", "bfloat16")
"""That weights may have."""
INPUTS = ("image", "last_image", "video", "mask")
"""That a record may name."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a pipeline is made of, as far as it decides about bits.

    Args:
        devices: kind of device of `dit`, `vae` and `text_embedder`.
        dtype: of weights and activations, one of `DTYPES`; None for each device's own.
        precision, attention, kernels, parallelism, vae_memory_saving, text_encoder_int8: as `get_T2V_pipeline` takes
            them; `attention` is the backend that was chosen, `vae_memory_saving` what was.
        processes: that made the video together.
        weights: fingerprint of `dit`, `text_encoder` and `vae`; see `checkpoint.fingerprint`.
        loras: fingerprint of each file of low-rank weights that was merged, by its name, in their order.
        lora_weights: how much of each, as text.
    """

    devices: Mapping[str, str]
    dtype: str | None
    precision: str
    attention: str
    kernels: str
    parallelism: str
    processes: int
    vae_memory_saving: bool
    weights: Mapping[str, str]
    text_encoder_int8: bool = False
    loras: Mapping[str, str] = field(default_factory=dict)
    lora_weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GivenRecord:
    """What was given besides the prompt.

    Args:
        inputs: of each, by the name that a call has for it, its file's `name` without a folder (None if it came as
            pixels) and the `sha256` of its pixels as they were used.
        strength: of a video that was changed.
        fit: as the call said it; None if it did not.
        overlap, seeds: of a video that was gone on with: seconds that pieces know of each other, and a seed for each.
    """

    inputs: Mapping[str, Mapping[str, str | None]]
    strength: float | None = None
    fit: str | None = None
    overlap: int | None = None
    seeds: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Look at the types: anybody may have written a record.

        Raises:
            TypeError: it is not what this library writes.
        """
        for name, entry in self.inputs.items():
            file, mark = entry["name"], entry["sha256"]
            plain = file is None or (isinstance(file, str) and PurePath(file).name == file)
            if name not in INPUTS or not plain or not isinstance(mark, str):
                raise TypeError(f"input {shown(name)} is {shown(entry)}")
        seeds = [] if self.seeds is None else list(self.seeds)
        if any(type(seed) is not int for seed in seeds) or type(self.overlap) not in (int, NoneType):
            raise TypeError(f"seeds are {shown(self.seeds)}, overlap is {shown(self.overlap)}")
        if self.strength not in (None, *STRENGTHS) or not isinstance(self.fit, str | None):
            raise TypeError(f"strength is {shown(self.strength)}, fit is {shown(self.fit)}")

    @classmethod
    def of(cls, given: Given) -> "GivenRecord":
        """Of pixels that a call gave."""
        inputs = {name: dataclasses.asdict(mark) for name, mark in given.marks.items()}
        return cls(inputs=inputs, strength=None if given.video is None else given.strength, fit=given.fit)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One generation.

    Args:
        prompt, seed, width, height, time_length: of the call; seconds are those of the model, before any other `fps`.
        fps, crf, codec: of the file, where it has them.
        interpolate, interpolate_with: how many times as many frames a second were made, and by what; None if not.
        origin: None for a pipeline that was put together by hand.
        given: what was given besides the prompt; None, and not in the file, if nothing was.
        kandinsky, torch: versions.
    """

    prompt: str
    seed: int
    width: int
    height: int
    time_length: int
    fps: int | None
    crf: int | None
    codec: str | None
    origin: Origin | None
    given: GivenRecord | None = None
    interpolate: int | None = None
    interpolate_with: str | None = None
    kandinsky: str = VERSION
    torch: str = torch.__version__

    def to_json(self) -> str:
        """One line; non-ASCII text stands as it is. What was not asked for is left out where others may be None."""
        fields = dataclasses.asdict(self)
        for name in ("given", "interpolate", "interpolate_with"):
            if fields[name] is None:
                del fields[name]
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: object) -> "Record":
        """The record in `text`, found in the file `source`; keys of later versions are passed over.

        Raises:
            RecordError: it is not one.
        """
        try:
            found = json.loads(text)
            origin = found["origin"]
            given = found.get("given")
            known = {**known_fields(cls, found), "origin": origin and Origin(**known_fields(Origin, origin))}
            made = cls(**{**known, "given": None if given is None else GivenRecord(**known_fields(GivenRecord, given))})
            check_types(made)
            if made.origin is not None:
                check_types(made.origin)
                if made.origin.dtype not in (None, *DTYPES):
                    raise ValueError(f"dtype is {shown(made.origin.dtype)}")
            return made
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"{source}: its comment is not a record of a generation ({error!r})") from error


def differences(made: Record, here: Origin | None) -> list[str]:
    """What is not now as it was when `made` was: each a line for the user. Empty: the same bits can be expected."""
    then = made.origin
    lines = [
        f"{name} was {before}, is {now}"
        for name, before, now in (("kandinsky", made.kandinsky, VERSION), ("torch", made.torch, torch.__version__))
        if before != now
    ]
    if then is None or here is None:
        return [*lines, "the file does not tell how the pipeline was loaded"]
    for name in (each.name for each in dataclasses.fields(Origin)):
        before, now = getattr(then, name), getattr(here, name)
        if before != now:
            lines.append(f"{name}: was {before}, is {now}")
    return lines
