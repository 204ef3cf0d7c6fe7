"""What goes wrong after sampling, and that nothing is lost by it: docs/reliability.md has the table."""

import errno
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import fault_process
import pytest
import torch
from fault_process import STAGES
from helpers import TINY, fork_server

from kandinsky import atomic
from kandinsky.cli.main import main
from kandinsky.errors import DecodeError
from kandinsky.output.video import VideoWriter

SETTINGS = {"time_length": 1, "width": 64, "height": 64, "seed": 3}


@pytest.fixture(scope="module")
def expected(pipe, tmp_path_factory):
    """What an undisturbed run writes."""
    return pipe("a cat", tmp_path_factory.mktemp("expected") / "v.mp4", **SETTINGS).path.read_bytes()


def finished_equal(pipe, latents, target, expected):
    """The saved latents give the video of an undisturbed run."""
    result = pipe.decode_to(latents, target)
    return result.seed == 3 and target.read_bytes() == expected


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, small_weights):
    """One process that is killed or interrupted at each stage, each time with an older video at its target."""
    base = tmp_path_factory.mktemp("interrupted")
    for stage, how in STAGES:
        (base / f"{stage}-{how}").mkdir()
        (base / f"{stage}-{how}" / "v.mp4").write_bytes(b"old")
    ours, theirs = multiprocessing.Pipe()
    process = fork_server().Process(target=fault_process.run, args=(base, theirs, small_weights))
    process.start()
    for stage, how in STAGES:
        assert ours.poll(60)
        name, pid = ours.recv()
        assert name == stage
        os.kill(pid, getattr(signal, how))
    process.join()
    return base


@pytest.mark.parametrize(("stage", "how"), STAGES)
def test_killed_or_interrupted(interrupted, pipe, tmp_path, expected, stage, how):
    folder = interrupted / f"{stage}-{how}"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert (folder / "v.mp4").read_bytes() == b"old"
    assert ("v.latents.safetensors" in names) == (stage != "sampling")
    if stage != "sampling":
        assert finished_equal(pipe, folder / "v.latents.safetensors", tmp_path / "v.mp4", expected)
    if how == "SIGINT":
        assert not list(folder.glob(".*"))
        said = (folder / "said").read_text()
        assert said.startswith("interrupted\n")
        assert said.endswith("\n130\n")
        assert ("kandinsky resume" in said) == (stage != "sampling")


def test_the_next_run_removes_what_a_killed_one_left(pipe, tmp_path):
    old, recent = tmp_path / ".v-01234567.partial.mp4", tmp_path / ".v-89abcdef.partial.mp4"
    for path in (old, recent):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - atomic.STALE - 1))
    pipe("a cat", tmp_path / "v.mp4", **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [recent.name, "v.mp4"]


def during_decode(monkeypatch, pipe, action):
    """Do `action` after the first chunk of frames."""
    decode = pipe.vae.decode

    def disturbed(latents, **settings):
        chunks = decode(latents, **settings)
        yield next(chunks)
        action()
        yield from chunks

    monkeypatch.setattr(pipe.vae, "decode", disturbed)


def fails(pipe, target, message):
    """Run; it fails with `message` and tells where the latents are."""
    with pytest.raises(DecodeError, match=message) as caught:
        pipe("a cat", target, **SETTINGS)
    found = re.search(r"to finish it: kandinsky resume (\S+)(?: --save-path \S+)?$", str(caught.value))
    assert found
    return Path(found[1])


def test_target_folder_removed(pipe, tmp_path, monkeypatch, expected):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        during_decode(patch, pipe, lambda: (time.sleep(0.3), shutil.rmtree(folder)))
        latents = fails(pipe, folder / "v.mp4", "ffmpeg failed|No such file")
    assert latents == tmp_path / "v.latents.safetensors"
    assert finished_equal(pipe, latents, tmp_path / "v.mp4", expected)


def test_target_folder_that_became_read_only(pipe, tmp_path, monkeypatch, expected):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        latents = fails(pipe, tmp_path / "v.mp4", "Permission denied")
    assert finished_equal(pipe, latents, tmp_path / "w.mp4", expected)


def test_encoder_killed(pipe, tmp_path, monkeypatch, expected):
    start, processes = subprocess.Popen, []

    def spy(*args, **settings):
        processes.append(start(*args, **settings))
        return processes[-1]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", spy)
        during_decode(patch, pipe, lambda: processes[-1].kill())  # noqa: PLW0108  # it does not exist yet
        latents = fails(pipe, tmp_path / "v.mp4", "ffmpeg failed to write")
    assert [path.name for path in tmp_path.iterdir()] == ["v.latents.safetensors"]
    assert finished_equal(pipe, latents, tmp_path / "v.mp4", expected)


def test_out_of_memory(pipe, tmp_path, monkeypatch, expected):
    def run_out():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    with monkeypatch.context() as patch:
        during_decode(patch, pipe, run_out)
        latents = fails(pipe, tmp_path / "v.mp4", "Tried to allocate 1.00 GiB")
    assert finished_equal(pipe, latents, tmp_path / "v.mp4", expected)


def test_file_size_limit_as_a_full_disk(pipe, tmp_path, monkeypatch, expected):
    """Without a small file system: the encoder is not allowed more than 4 kB."""
    start = subprocess.Popen

    def limited(*args, **settings):
        return start(*args, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)), **settings)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", limited)
        latents = fails(pipe, tmp_path / "v.mp4", "ffmpeg failed to write")
    assert [path.name for path in tmp_path.iterdir()] == ["v.latents.safetensors"]
    assert finished_equal(pipe, latents, tmp_path / "v.mp4", expected)


def test_full_disk(pipe, tmp_path, monkeypatch, expected):
    """A file system of 64 kB, with room for neither the video nor the latents."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False).returncode:  # noqa: S607
        pytest.skip("may not mount a small file system here; the limit on file sizes stands in for it")
    try:
        (small / "v.mp4").write_bytes(b"old")
        (small / "other").write_bytes(bytes(56 * 1024))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        latents = fails(pipe, small / "v.mp4", "ffmpeg failed to write|No space left")
        assert sorted(path.name for path in small.iterdir()) == ["other", "v.mp4"]
        assert (small / "v.mp4").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", small], check=True)  # noqa: S607
    assert latents.parent == tmp_path
    assert finished_equal(pipe, latents, tmp_path / "w.mp4", expected)


def test_nowhere_to_save(pipe, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DecodeError, match=r"could not be saved either: .*No space left"):
        pipe("a cat", tmp_path / "v.mp4", **SETTINGS)


def test_two_write_the_same_target(pipe, tmp_path, expected):
    """Two writers at a time, as two processes are: the last one wins with a complete file, both keep their latents."""
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(pipe("a cat", tmp_path / "v.mp4", **SETTINGS))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    assert (tmp_path / "v.mp4").read_bytes() == expected


def test_older_latents_are_not_overwritten(pipe, tmp_path, monkeypatch):
    (tmp_path / "v.latents.safetensors").write_bytes(b"of another run")
    monkeypatch.setattr(VideoWriter, "finish", lambda _: 1 / 0)
    latents = fails(pipe, tmp_path / "v.mp4", "division by zero")
    assert latents.name == "v-2.latents.safetensors"
    assert (tmp_path / "v.latents.safetensors").read_bytes() == b"of another run"


def test_resume_command(pipe, tmp_path, monkeypatch, capsys, expected):
    """It finishes with the VAE alone."""
    vae_alone = tmp_path / "weights"
    vae_alone.mkdir()
    (vae_alone / "vae").symlink_to(TINY / "vae")
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "finish", lambda _: 1 / 0)
        latents = fails(pipe, tmp_path / "v.mp4", "division by zero")
    assert main(["resume", str(latents), "--no-progress", "--weights", str(vae_alone)]) == 0
    assert "9 frames, seed 3" in capsys.readouterr().out
    assert (tmp_path / "v.mp4").read_bytes() == expected
    latents.write_bytes(b"damaged")
    assert main(["resume", str(latents), "--weights", str(TINY)]) == 1
    assert "is damaged" in capsys.readouterr().err
