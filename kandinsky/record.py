"""How a video was made, as JSON inside of its file: enough to make it again.

It holds no path, no name of a machine and no date: the same call writes the same bytes.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kandinsky import __version__
from kandinsky.weight_files import Checkpoint


class RecordError(ValueError):
    """A file has no record, or one that cannot be read; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a pipeline is made of, as far as it decides about bits.

    Args:
        devices: kind of device of `dit`, `vae` and `text_embedder`.
        dtype: of weights and activations, `torch.bfloat16` and so on; None for each device's own.
        precision, attention, kernels, parallelism, vae_memory_saving, text_encoder_int8: as `get_T2V_pipeline` takes
            them; `attention` is the backend that was chosen, `vae_memory_saving` what was.
        processes: that made the video together.
        weights: fingerprint of `dit`, `text_encoder` and `vae`; see `fingerprint`.
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
    kandinsky: str = __version__
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
            known = {**_known(cls, found), "origin": origin and Origin(**_known(Origin, origin))}
            return cls(**known)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"{source}: its comment is not a record of a generation ({error!r})") from error


def _known(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in found.items() if name in names}


def differences(made: Record, here: Origin | None) -> list[str]:
    """What is not now as it was when `made` was: each a line for the user. Empty: the same bits can be expected."""
    then = made.origin
    lines = [
        f"{name} was {before}, is {now}"
        for name, before, now in (("kandinsky", made.kandinsky, __version__), ("torch", made.torch, torch.__version__))
        if before != now
    ]
    if then is None or here is None:
        return [*lines, "the file does not tell how the pipeline was loaded"]
    for field in dataclasses.fields(Origin):
        before, now = getattr(then, field.name), getattr(here, field.name)
        if before != now:
            lines.append(f"{field.name}: was {before}, is {now}")
    return lines


def fingerprint(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits that tell checkpoints apart without reading them whole.

    A SHA-256 over each tensor's name, shape and dtype and the bytes of its first, middle and last row (of axis 0): 10
    MB of the 21 GB. A change in other rows alone goes unseen. Whether the file is `.pt` or `.safetensors` makes no
    difference.
    """
    from hashlib import sha256

    digest = sha256()
    cpu = torch.device("cpu")
    for name in sorted(checkpoint.shapes):
        shape = checkpoint.shapes[name]
        rows = (
            [(slice(row, row + 1),) for row in sorted({0, shape[0] // 2, shape[0] - 1})]
            if shape and all(shape)
            else None
        )
        tensor = checkpoint.tensor(name, cpu, rows)
        digest.update(f"{name} {shape} {tensor.dtype}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
