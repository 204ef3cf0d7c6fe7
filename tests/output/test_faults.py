"""What goes wrong after sampling, and that nothing is lost by it: docs/reliability.md has the table."""

import errno
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import fault_process
import pytest
import torch
from fakes import CPU, RECORD, SMALL_LATENTS, DisturbedVae, QuickVae, ffmpeg_script
from fault_process import STAGES
from helpers import LONG, SMALL, fork_server, running

from kandinsky.errors import DecodeError
from kandinsky.output.finisher import Finisher
from kandinsky.output.options import OutputOptions, output_of
from kandinsky.output.remaining import remaining_of
from kandinsky.progress import Clock

QUICK = QuickVae()
LATENTS = SMALL_LATENTS.repeat(8, 1, 1, 1)
"""Of clips that are long enough to be disturbed while they are written."""
SMOOTH = replace(RECORD, interpolate=2, interpolate_with="ffmpeg", fps=16)
FILTER_FAILS = """
echo $$ >> "${0%/*}/numbers"
case "$*" in *minterpolate*) cat > /dev/null; echo "no memory" >&2; exit 1;; esac
exec "$real" "$@"
"""
"""For `ffmpeg_script`: frames are encoded, but those in between not made."""


def write(target, vae=QUICK, record=RECORD, latents=LATENTS):
    """Decode and write, as a pipeline does what it has sampled."""
    output, path = output_of(target, OutputOptions(interpolate=record.interpolate), is_image=False, model_fps=8)
    finisher = Finisher(vae, SMALL, progress=False)
    clock = Clock(frozenset([CPU]))
    return finisher.begin(latents, path, output=output, record=record, clock=clock)().path.read_bytes()


def fails(target, message, vae=QUICK, record=RECORD, latents=LATENTS):
    """It fails with `message` and tells where the latents are."""
    with pytest.raises(DecodeError, match=message) as caught:
        write(target, vae, record, latents)
    _, _, command = str(caught.value).partition("to finish it: ")
    name, resume, kept, *save_path = shlex.split(command)
    assert (name, resume, save_path[:-1]) == ("kandinsky", "resume", ["--save-path"] if save_path else [])
    return Path(kept)


def finished(latents, target):
    """What comes of saved latents."""
    return (
        Finisher(QUICK, SMALL, progress=False).finish(remaining_of(latents, target, model_set=SMALL)).path.read_bytes()
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What an undisturbed run writes."""
    return write(tmp_path_factory.mktemp("expected") / "v.mp4")


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
        assert ours.poll(LONG)
        name, pid = ours.recv()
        assert name == stage
        os.kill(pid, getattr(signal, how))
    process.join()
    return base


@pytest.fixture(scope="module")
def undisturbed(pipe, tmp_path_factory):
    """What the interrupted process would have written, by whether it made frames in between."""
    folder, call = tmp_path_factory.mktemp("undisturbed"), {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    return {
        factor is not None: pipe("a cat", folder / "v.mp4", **call, interpolate=factor).path.read_bytes()
        for factor in (None, 2)
    }


@pytest.mark.parametrize(("stage", "how"), STAGES)
def test_killed_or_interrupted(interrupted, pipe, tmp_path, undisturbed, stage, how):
    folder = interrupted / f"{stage}-{how}"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert (folder / "v.mp4").read_bytes() == b"old"
    assert ("v.latents.safetensors" in names) == (stage != "sampling")
    if stage != "sampling":
        result = pipe.decode_to(folder / "v.latents.safetensors", tmp_path / "v.mp4")
        assert result.path.read_bytes() == undisturbed[stage == "between"]
    if how == "SIGINT":
        assert not list(folder.glob(".*"))
        said = (folder / "said").read_text()
        assert said.startswith("interrupted\n")
        assert said.endswith("\n130\n")
        assert ("kandinsky resume" in said) == (stage != "sampling")


def test_the_filter_between_frames_fails(tmp_path, monkeypatch):
    """The latents are kept, and no file of the video; what is left of it is made as it was asked for."""
    expected = write(tmp_path / "expected.mp4", record=SMOOTH, latents=SMALL_LATENTS)
    (tmp_path / "made").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, FILTER_FAILS))
        latents = fails(
            tmp_path / "made" / "v.mp4", "minterpolate failed: no memory", record=SMOOTH, latents=SMALL_LATENTS
        )
    assert [path.name for path in (tmp_path / "made").iterdir()] == [latents.name]
    assert not running((tmp_path / "numbers").read_text().split())
    assert finished(latents, tmp_path / "v.mp4") == expected


def removing(folder, latents):
    """Remove the folder once the latents are in it."""

    def during(_number):
        while not latents.exists():
            threading.Event().wait(0.01)
        shutil.rmtree(folder)

    return DisturbedVae(QUICK, during)


def test_target_folder_removed(tmp_path, monkeypatch, expected):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    vae = removing(folder, folder / "v.latents.safetensors")
    latents = fails(folder / "v.mp4", "ffmpeg failed|No such file", vae)
    assert latents == tmp_path / "v.latents.safetensors"
    assert finished(latents, tmp_path / "v.mp4") == expected


def test_target_folder_that_became_read_only(tmp_path, monkeypatch, expected):
    """Simulated: whoever is root may write everywhere."""

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        latents = fails(tmp_path / "v.mp4", "Permission denied")
    assert finished(latents, tmp_path / "w.mp4") == expected


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("head -c 20000 > /dev/null; kill -9 $$", "ffmpeg failed to write .*: exit status -9"),
        ('ulimit -f 4; exec "$real" "$@"', "ffmpeg failed to write"),
    ],
    ids=["killed", "limit on the size of files"],
)
def test_encoder_that_does_not_come_to_its_end(tmp_path, monkeypatch, expected, script, message):
    (tmp_path / "program").mkdir()
    (tmp_path / "videos").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path / "program", script))
        latents = fails(tmp_path / "videos" / "v.mp4", message)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["v.latents.safetensors"]
    assert finished(latents, tmp_path / "v.mp4") == expected


def test_out_of_memory(tmp_path, expected):
    def run_out(_number):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    latents = fails(tmp_path / "v.mp4", "Tried to allocate 1.00 GiB", DisturbedVae(QUICK, run_out))
    assert finished(latents, tmp_path / "w.mp4") == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB with room for neither the video nor the latents."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False).returncode:  # noqa: S607
        pytest.skip("may not mount a small file system here; the limit on file sizes stands in for it")
    (small / "v.mp4").write_bytes(b"old")
    (small / "other").write_bytes(bytes(56 * 1024))
    yield small
    subprocess.run(["umount", small], check=True)  # noqa: S607


def test_full_disk(small_disk, tmp_path, monkeypatch, expected):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    latents = fails(small_disk / "v.mp4", "ffmpeg failed to write|No space left")
    assert sorted(path.name for path in small_disk.iterdir()) == ["other", "v.mp4"]
    assert (small_disk / "v.mp4").read_bytes() == b"old"
    assert latents.parent == tmp_path
    assert finished(latents, tmp_path / "w.mp4") == expected


@pytest.mark.usefixtures("full_disks")
def test_nowhere_to_save(tmp_path):
    with pytest.raises(DecodeError, match=r"could not be saved either: .*No space left"):
        write(tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_two_write_the_same_target(tmp_path, expected):
    """At a time, as two processes: the last one wins with a complete file, and none takes the other's latents."""
    both, written = threading.Barrier(2), []

    def one():
        written.append(write(tmp_path / "v.mp4", DisturbedVae(QUICK, lambda _: both.wait(LONG))))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [expected] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_two_that_fail_keep_the_latents_of_both(tmp_path):
    both, errors = threading.Barrier(2), []

    def fail(_number):
        both.wait(LONG)
        raise ArithmeticError

    def one():
        errors.append(fails(tmp_path / "v.mp4", "ArithmeticError", DisturbedVae(QUICK, fail)))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name for path in errors} == {"v.latents.safetensors", "v-2.latents.safetensors"}
    assert set(errors) == set(tmp_path.iterdir())


def test_latents_stay_as_they_were_sampled(tmp_path):
    output, path = output_of(tmp_path / "v.mp4", OutputOptions(), is_image=False, model_fps=8)
    finisher = Finisher(DisturbedVae(QUICK, lambda _: 1 / 0), SMALL, progress=False)
    with pytest.raises(DecodeError):
        finisher.begin(
            LATENTS.double() / 3, path, output=output, record=replace(RECORD, seed=4), clock=Clock(frozenset())
        )
    left = remaining_of(tmp_path / "v.latents.safetensors", model_set=SMALL)
    assert torch.equal(left.latents, LATENTS.double() / 3)
    assert left.record.seed == 4
