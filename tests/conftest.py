"""Shared fixtures: pipelines of tiny weights, loaded once, and settings of the process that make tests fast."""

import atexit
import ctypes
import gc
import os
from pathlib import Path

# Read when torch is loaded, here and in processes that tests start: threads that wait sleep. Where other work shares
# the cores, threads that spin make the tests several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Freed memory stays with the process: glibc else gives each large tensor back and asks the kernel for the next one,
# whose zeroing of pages is a third of a decoding's time. Read when a process starts: see also `pytest_configure`.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=2147483647:glibc.malloc.trim_threshold=2147483647")

import pytest
from helpers import SMALL, TINY, fork_server, golden_folder, own_weights
from video_helpers import run, write_video

from kandinsky.audio.parts import SoundParts
from kandinsky.audio.pipeline import Kandinsky4V2APipeline
from kandinsky.factory import get_T2V_pipeline
from kandinsky.pipeline import Kandinsky4T2VPipeline

MANY = 1000
"""Tests, among which some need `fork_server`."""


def pytest_configure() -> None:
    """Set glibc's tunables in this process too, and collect no garbage while tests and libraries are loaded."""
    gc.disable()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
            libc.mallopt(parameter, 2**31 - 1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect garbage from here on, less often, and without what is there by now: it stays for the whole run.

    Of many tests some need the server that forks processes: it is loaded by another core meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    atexit.register(gc.unfreeze)  # modules in C++ tell of whatever the interpreter leaves at its end
    if len(session.items) > MANY and not session.config.option.collectonly:
        fork_server()


@pytest.fixture(scope="session")
def golden() -> Path:
    return golden_folder()


@pytest.fixture(scope="session")
def golden_pipe() -> Kandinsky4T2VPipeline:
    """The weights that made the golden files, in float32 on the CPU."""
    return get_T2V_pipeline("cpu", cache_dir=golden_folder() / "tiny_weights", local_files_only=True, progress=False)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny random weights that declare the sizes of `SMALL`."""
    return own_weights(tmp_path_factory.mktemp("small_weights"), SMALL)


@pytest.fixture(scope="session")
def pipe(small_weights: Path) -> Kandinsky4T2VPipeline:
    """Random tiny weights with small sizes."""
    return get_T2V_pipeline("cpu", cache_dir=small_weights, local_files_only=True, progress=False)


@pytest.fixture(scope="session")
def unreadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights of which every file would be refused if it was opened."""
    folder = tmp_path_factory.mktemp("unreadable")
    for path in TINY.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(TINY)).parent.mkdir(exist_ok=True)
            (folder / path.relative_to(TINY)).write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def sound_pipe() -> Kandinsky4V2APipeline:
    """A small model of sounds, without an encoder."""
    from audio_helpers import SCHEDULER, small_unet, small_vae

    parts = SoundParts(unet=small_unet(), vae=small_vae(), scheduler=SCHEDULER, progress=False)
    return Kandinsky4V2APipeline(parts)


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


@pytest.fixture
def quick_waveform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of Griffin-Lim's iterations, for tests that do not listen: 32 take longer than all the rest of a sound."""
    monkeypatch.setattr("kandinsky.audio.waveform.ITERATIONS", 2)
