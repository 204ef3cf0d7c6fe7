"""A small pipeline, and clips of a second."""

from pathlib import Path

import pytest
from audio_helpers import SCHEDULER, golden_unet, golden_vae
from video_helpers import run, write_video

from kandinsky.audio.parts import SoundParts
from kandinsky.audio.pipeline import Kandinsky4V2APipeline


@pytest.fixture(scope="session")
def sound_pipe() -> Kandinsky4V2APipeline:
    """The golden file's small model, without an encoder."""
    return Kandinsky4V2APipeline(SoundParts(unet=golden_unet(), vae=golden_vae(), scheduler=SCHEDULER, progress=False))


@pytest.fixture(scope="session")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 9 frames at 8 a second, without a sound."""
    path = tmp_path_factory.mktemp("silent") / "silent.mp4"
    write_video(path, frames=9)
    return path


@pytest.fixture(scope="session")
def loud(silent: Path) -> Path:
    """The same with a sound track."""
    path = silent.with_name("loud.mp4")
    sound = ("-f", "lavfi", "-i", "sine=frequency=440:duration=1")
    run("-i", str(silent), *sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", str(path))
    return path
