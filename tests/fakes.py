"""Stand-ins that tests hand in where something is to be watched, to fail, or to be there in a moment."""

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from imageio_ffmpeg import get_ffmpeg_exe
from torch import Tensor

from kandinsky.output.record import Record
from kandinsky.pipeline import Kandinsky4T2VPipeline

CPU = torch.device("cpu")
FFMPEG = get_ffmpeg_exe()
RECORD = Record(prompt="a cat", seed=3, width=64, height=64, time_length=1, fps=8, crf=5, codec="h264", origin=None)
SMALL_LATENTS = torch.randn(3, 8, 8, 16, generator=torch.Generator().manual_seed(0))
"""Of one second at 64x64."""


def nothing(*_arguments: object) -> None:
    """Do nothing."""


class PassedOn:
    """What is not defined here is the real one's."""

    def __init__(self, real: Any):
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class WatchedDit(PassedOn):
    """A DiT that calls `before(index)` before each step."""

    def __init__(self, real: Any, before: Callable[[int], object]):
        super().__init__(real)
        self._before = before

    def step(self, latents: Tensor, context: Any, index: int) -> Tensor:
        self._before(index)
        return self._real.step(latents, context, index)


class DisturbedVae(PassedOn):
    """A VAE that calls `during(number)` after the first chunk of its decoding number 1, 2, ...

    `attempts` has each decoding's `memory_saving`.
    """

    def __init__(self, real: Any, during: Callable[[int], object]):
        super().__init__(real)
        self._during = during
        self.attempts: list[bool | None] = []

    def frames(self, latents: Tensor, *, memory_saving: bool | None = None) -> Iterator[Tensor]:
        self.attempts.append(memory_saving)
        for index, chunk in enumerate(self._real.frames(latents, memory_saving=memory_saving)):
            yield chunk
            if index == 0:
                self._during(len(self.attempts))


@dataclass(frozen=True)
class QuickVae:
    """A VAE that is no network: its frames show the latents' first channels."""

    device: torch.device = CPU
    staged: bool = False
    config: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(latent_channels=16))

    def frames(self, latents: Tensor, *, memory_saving: bool | None = None) -> Iterator[Tensor]:  # noqa: ARG002
        """Two latent frames at a time, the first one gives one frame and each other one four."""
        picture = (latents[..., :3].float().sigmoid() * 255).byte()
        picture = picture.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)
        for start in range(0, len(latents), 2):
            part = picture[start : start + 2].repeat_interleave(4, dim=0)
            yield part[3:] if start == 0 else part


class TextOnly:
    """A text encoder that gives the same embedding for each prompt, and calls `read(prompt)` before."""

    device = CPU
    is_resident = True

    def __init__(self, embedding: Tensor, read: Callable[[str], object] = nothing):
        self._embedding = embedding
        self._read = read

    def __call__(self, text: str) -> Tensor:
        self._read(text)
        return self._embedding


def changed(pipe: Kandinsky4T2VPipeline, **parts: Any) -> Kandinsky4T2VPipeline:
    """The same pipeline with other parts."""
    return Kandinsky4T2VPipeline(replace(pipe.parts, **parts))


def ffmpeg_script(folder: Path, encoding: str, *, listing: str = 'exec "$real" "$@"') -> str:
    """A program for the variable IMAGEIO_FFMPEG_EXE.

    Args:
        folder: for the program.
        encoding: a shell script that takes the place of an encoding; `"$real" "$@"` is the encoding itself.
        listing: likewise, of what asks for names of encoders.
    """
    program = folder / "ffmpeg"
    program.write_text(
        f'#!/bin/sh\nreal={shlex.quote(FFMPEG)}\ncase "$*" in *-encoders*) {listing}; exit;; esac\n{encoding}\n'
    )
    program.chmod(0o755)
    return str(program)


FAILS_AT_THE_END = 'cat > /dev/null; echo "No space left on device" >&2; exit 1'
"""For `ffmpeg_script`: all frames are taken, and nothing comes of it."""
