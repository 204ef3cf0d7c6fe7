"""How a sound was made, as JSON in its file: enough to make it again from the same video.

A file of text to video has a record already. The sound's is added to it under the key `sound`, which readers of that
record pass over; in any other video it is alone.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kandinsky.config import VERSION
from kandinsky.errors import RecordError
from kandinsky.output.record_fields import check_types, known_fields
from kandinsky.output.video import read_comment

KEY = "sound"


@dataclass(frozen=True, kw_only=True)
class SoundOrigin:
    """What a pipeline is made of, as far as it decides about bits.

    Args:
        devices: kind of device of `unet`, `vae` and `encoder`.
        dtype: of the UNet's weights and activations.
        weights: fingerprint of `unet` and `vae`; see `checkpoint.fingerprint`.
    """

    devices: Mapping[str, str]
    dtype: str
    weights: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SoundRecord:
    """One sound.

    Args:
        prompt, negative_prompt: of the call; None where embeddings were given instead.
        seed, num_inference_steps, guidance_scale: of the call.
        seconds: of the video that got a sound.
        encoder: what tells the encoder from others; None where embeddings were given.
        origin: None for a pipeline that was put together by hand.
        kandinsky, torch: versions.
    """

    prompt: str | None
    negative_prompt: str | None
    seed: int
    num_inference_steps: int
    guidance_scale: float
    seconds: int
    encoder: str | None
    origin: SoundOrigin | None
    kandinsky: str = VERSION
    torch: str = torch.__version__

    def beside(self, comment: str | None) -> str:
        """The comment of the new file, one line of JSON: this record, and what `comment` of the video's file holds.

        Args:
            comment: of the video without sound; one that is no record is passed over.
        """
        return json.dumps({**(_object_in(comment) or {}), KEY: dataclasses.asdict(self)}, ensure_ascii=False)


def read_sound_record(path: Path) -> SoundRecord | None:
    """The record of the sound in a video file; None if there is none.

    Raises:
        RecordError: there is one, and it is damaged.
    """
    try:
        found = (_object_in(read_comment(path)) or {}).get(KEY)
    except UnicodeError:
        return None
    if found is None:
        return None
    try:
        origin = found["origin"]
        made_by = origin and SoundOrigin(**known_fields(SoundOrigin, origin))
        made = SoundRecord(**{**known_fields(SoundRecord, found), "origin": made_by})
        check_types(made)
        if made.origin is not None:
            check_types(made.origin)
    except (TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path}: its record of the sound is damaged ({error!r})") from error
    return made


def _object_in(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
