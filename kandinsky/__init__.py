"""Kandinsky 4.0 T2V Flash: a prompt to a video in four steps.

    from kandinsky import get_T2V_pipeline

    pipe = get_T2V_pipeline("cuda:0")
    result = pipe("A lighthouse in a storm.", "lighthouse.mp4", time_length=12, width=672, height=384)
    print(result.path, result.seed, result.timings)

`get_T2V_pipeline` loads a `Kandinsky4T2VPipeline`, which is called with a prompt. A call that writes a file returns a
`GenerationResult`; other calls return frames or latents. Wrong arguments are a `ValueError` before anything is loaded;
what else can fail is a `KandinskyError`.

Importing this package loads neither torch nor any model library: names are resolved at first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kandinsky.config import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from kandinsky.audio.factory import get_V2A_pipeline
    from kandinsky.audio.pipeline import Kandinsky4V2APipeline
    from kandinsky.audio.result import SoundResult
    from kandinsky.errors import (
        CheckpointError,
        DecodeError,
        KandinskyError,
        LaunchError,
        NothingFits,
        RecordError,
        StoppedError,
        TrainingError,
        UnreadableVideoError,
        VideoError,
        WorkersError,
    )
    from kandinsky.factory import get_T2V_pipeline
    from kandinsky.output.result import FramesResult, GenerationResult, LatentsResult, Result
    from kandinsky.pipeline import Kandinsky4T2VPipeline

__all__ = [
    "CheckpointError",
    "DecodeError",
    "FramesResult",
    "GenerationResult",
    "Kandinsky4T2VPipeline",
    "Kandinsky4V2APipeline",
    "KandinskyError",
    "LatentsResult",
    "LaunchError",
    "NothingFits",
    "RecordError",
    "Result",
    "SoundResult",
    "StoppedError",
    "TrainingError",
    "UnreadableVideoError",
    "VideoError",
    "WorkersError",
    "__version__",
    "get_T2V_pipeline",
    "get_V2A_pipeline",
]

_HOME = {
    **dict.fromkeys(__all__, "kandinsky.errors"),
    "get_T2V_pipeline": "kandinsky.factory",
    "Kandinsky4T2VPipeline": "kandinsky.pipeline",
    "get_V2A_pipeline": "kandinsky.audio.factory",
    "Kandinsky4V2APipeline": "kandinsky.audio.pipeline",
    "SoundResult": "kandinsky.audio.result",
    **dict.fromkeys(("FramesResult", "GenerationResult", "LatentsResult", "Result"), "kandinsky.output.result"),
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'kandinsky' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
