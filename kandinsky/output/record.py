"""How a video was made, as JSON inside of its file: enough to make it again.

It holds no path, no name of a machine and no date: the same call writes the same bytes.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

import torch

from kandinsky.config import VERSION
from kandinsky.errors import RecordError, shown

DTYPES = ("float32", "bfloat16")
"""That weights may have."""


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


@dataclass(frozen=True, kw_only=True)
class Record:
    """One generation.

    Args:
        prompt, seed, width, height, time_length: of the call; seconds are those of the model, before any other `fps`.
        fps, crf, codec: of the file, where it has them.
        origin: None for a pipeline that was put together by hand.
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
    kandinsky: str = VERSION
    torch: str = torch.__version__

    def to_json(self) -> str:
        """One line; non-ASCII text stands as it is."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: object) -> "Record":
        """The record in `text`, found in the file `source`; keys of later versions are passed over.

        Raises:
            RecordError: it is not one.
        """
        try:
            found = json.loads(text)
            origin = found["origin"]
            made = cls(**{**_known(cls, found), "origin": origin and Origin(**_known(Origin, origin))})
            _check_types(made)
            if made.origin is not None:
                _check_types(made.origin)
                if made.origin.dtype not in (None, *DTYPES):
                    raise ValueError(f"dtype is {shown(made.origin.dtype)}")
            return made
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"{source}: its comment is not a record of a generation ({error!r})") from error


def _known(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in found.items() if name in names}


def _check_types(made: Record | Origin) -> None:
    """Look whether what was read has the types that it should have: anybody may have written it.

    Raises:
        TypeError: names the field.
    """
    for name, kind in get_type_hints(type(made)).items():
        value = getattr(made, name)
        if get_origin(kind) is Mapping:
            right = isinstance(value, dict) and all(isinstance(part, str) for part in value.values())
        else:
            right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not right:
            raise TypeError(f"{name} is {shown(value)}")


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
    for field in dataclasses.fields(Origin):
        before, now = getattr(then, field.name), getattr(here, field.name)
        if before != now:
            lines.append(f"{field.name}: was {before}, is {now}")
    return lines
