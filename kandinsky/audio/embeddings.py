"""What V2A knows of a video and of prompts: the encoder's embeddings, in memory, in a file, and in a folder of them.

With a file or a folder everything but the encoder itself runs without the encoder, which has 12 billion parameters.
"""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kandinsky.atomic import replacing
from kandinsky.audio.unet import ENCODER_DIM
from kandinsky.errors import CheckpointError
from kandinsky.user_files.paths import user_path

TEXT_ROWS = 100
"""Of a prompt's embedding, padded with zeros or cut."""
NAMES = ("text", "video")
"""Of the tensors in a file."""


@dataclass(frozen=True)
class Embeddings:
    """Floating-point tensors on the CPU, of which row 0 is what the sound is to be unlike.

    Args:
        text: `[2, 100, 4096]`, of the negative prompt and of the prompt.
        video: `[2, frames, 4096]`, of a black video and of the video.

    Raises:
        ValueError: a shape or a dtype is another one, or a value is not finite.
    """

    text: Tensor
    video: Tensor

    def __post_init__(self) -> None:
        frames = self.video.shape[1] if self.video.ndim > 1 else 0
        for name, wanted in (("text", TEXT_ROWS), ("video", max(frames, 1))):
            tensor, shape = getattr(self, name), (2, wanted, ENCODER_DIM)
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                found = f"{tensor.dtype} {list(tensor.shape)}"
                rows = wanted if name == "text" else "frames"
                raise ValueError(f"embeddings: {name} is {found}; allowed is floating-point [2, {rows}, {ENCODER_DIM}]")
            if not tensor.isfinite().all():
                raise ValueError(f"embeddings: {name} has values that are not finite")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them into a `.safetensors` file."""
        with replacing(user_path(path, "embeddings")) as partial:
            save_file({name: getattr(self, name).contiguous() for name in NAMES}, partial)


def read_embeddings(path: Path) -> Embeddings:
    """Of a file that `Embeddings.save` wrote, or one with the same tensors.

    Raises:
        ValueError: there is no such file, or its tensors are not what they should be.
        CheckpointError: the file is damaged or of another kind.
    """
    if not path.is_file():
        raise ValueError(f"embeddings={str(path)!r}: there is no such file")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a file of embeddings: {error}") from error
    if missing := [name for name in NAMES if name not in found]:
        raise ValueError(f"embeddings={str(path)!r} has no tensor {missing[0]!r}; needed are {' and '.join(NAMES)}")
    return Embeddings(*(found[name] for name in NAMES))


@dataclass(frozen=True)
class EmbeddingCache:
    """A folder of embeddings that were made before; it may be deleted. A file that cannot be read is a miss.

    Args:
        folder: is made when the first file is written.
        encoder: what tells one encoder from another, for example its revision.
    """

    folder: Path
    encoder: str

    def file(self, mark: str, prompt: str, negative_prompt: str) -> Path:
        """Where the embeddings of a video with this mark (see `Clip`) and of these prompts are kept."""
        parts = (self.encoder, mark, prompt, negative_prompt)
        return self.folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.safetensors"

    def get(self, mark: str, prompt: str, negative_prompt: str) -> Embeddings | None:
        """What is kept; None if nothing is."""
        path = self.file(mark, prompt, negative_prompt)
        if not path.is_file():
            return None
        try:
            return read_embeddings(path)
        except (ValueError, CheckpointError) as error:
            warnings.warn(f"{path} is made again: {error}", UserWarning, stacklevel=2)
            return None

    def put(self, embeddings: Embeddings, mark: str, prompt: str, negative_prompt: str) -> None:
        """Keep them. A folder that cannot be written is warned of: what was encoded is there all the same."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            embeddings.save(self.file(mark, prompt, negative_prompt))
        except OSError as error:
            warnings.warn(f"embeddings are not kept: {error}", UserWarning, stacklevel=2)


def embeddings_of(negative: tuple[Tensor, Tensor], positive: tuple[Tensor, Tensor]) -> Embeddings:
    """Of what the encoder gave for both halves: text `[100, 4096]` and video `[frames, 4096]` each, on any device."""
    text, video = (torch.stack(pair).cpu() for pair in zip(negative, positive, strict=True))
    return Embeddings(text, video)
