"""Faults that users of other projects reported, tried on this library: each with the right behaviour.

Those about files of weights stand in tests/checkpoint, those about training data in tests/training.
"""

import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import LONG, ROOT, until
from safetensors.torch import load_file, save_file

from kandinsky import DecodeError, Kandinsky4T2VPipeline, RecordError
from kandinsky.batch import make_items, run_batch
from kandinsky.cli import serve
from kandinsky.cli.common import parse_and_run
from kandinsky.cli.main import main
from kandinsky.config import FLASH_512
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.loading.settings import settings_of
from kandinsky.model.isolation import isolated
from kandinsky.output.options import OutputOptions, output_of
from kandinsky.output.paths import check_target
from kandinsky.output.record import Record
from kandinsky.output.remaining import remaining_of
from kandinsky.output.unfinished import SUFFIX, Unfinished, VaeSource, kept, load_unfinished, save_unfinished
from kandinsky.output.video import VideoWriter
from kandinsky.parallel import ranks as ranks_module
from kandinsky.parallel.apply import NONE, TENSOR
from kandinsky.parallel.ranks import Ranks, launched, open_group

RECORD = Record(prompt="a cat", seed=3, width=64, height=64, time_length=1, fps=8, crf=5, codec="h264", origin=None)
CALL = {"time_length": 1, "width": 64, "height": 64, "seed": 3}


def unfinished(path: Path | None) -> Unfinished:
    return Unfinished(latents=torch.zeros(3, 8, 8, 16), record=RECORD, save_path=path, metadata=True, vae=None)


# Lost or overwritten


def test_latents_are_saved_beside_the_target_without_home_and_temporary_folder(tmp_path, monkeypatch):
    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(Path, "home", homeless)
    assert save_unfinished(unfinished(tmp_path / "v.mp4")) == tmp_path / f"v{SUFFIX}"
    with pytest.raises(OSError, match=r"beside its target: .*temporary files: No usable.*at home: Could not"):
        save_unfinished(unfinished(tmp_path / "gone" / "v.mp4"))


def test_an_interrupt_stays_one_where_nothing_can_be_saved(tmp_path, monkeypatch):
    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(KeyboardInterrupt) as caught, kept(unfinished(tmp_path / "gone" / "v.mp4")):
        raise KeyboardInterrupt
    assert "could not be saved either" in caught.value.__notes__[0]


def test_a_video_is_written_without_a_temporary_folder(tmp_path, monkeypatch):
    def nowhere(*_args, **_settings):
        raise FileNotFoundError("No usable temporary directory found")

    for name in ("gettempdir", "TemporaryFile", "NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, nowhere)
    with VideoWriter(tmp_path / "v.mp4", width=64, height=64, fps=8, comment="as it is") as writer:
        writer.write(np.zeros((3, 64, 64, 3), np.uint8))
        writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def foreign(folder: Path, target: Path) -> Path:
    """A file of latents in `folder` that says it is to replace `target`."""
    written = save_unfinished(unfinished(folder / "v.mp4"))
    job = json.dumps({"save_path": str(target), "metadata": True})
    metadata = {"record": RECORD.to_json(), "job": job, "vae": "null"}
    save_file(load_file(written), written, metadata=metadata)
    return written


@pytest.mark.parametrize("way", ["elsewhere/v.mp4", "in/../elsewhere/v.mp4", "in/link/v.mp4"])
def test_a_file_of_latents_does_not_choose_a_target_elsewhere(tmp_path, way):
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    file = foreign(tmp_path / "in", tmp_path / way)
    with pytest.raises(ValueError, match="names a target in another folder"):
        remaining_of(file, model_set=FLASH_512)
    named = remaining_of(file, tmp_path / "elsewhere" / "v.mp4", model_set=FLASH_512)
    assert named.path == tmp_path / "elsewhere" / "v.mp4"
    own = foreign(tmp_path / "in", tmp_path / "in" / "w.mp4")
    assert remaining_of(own, model_set=FLASH_512).path == tmp_path / "in" / "w.mp4"


def test_latents_that_had_to_go_elsewhere_name_the_whole_command(tmp_path, monkeypatch):
    target = tmp_path / "gone" / "v.mp4"
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(DecodeError) as caught, kept(unfinished(target)):
        raise OSError("disk full")
    command = ["kandinsky", "resume", str(tmp_path / f"v{SUFFIX}"), "--save-path", str(target)]
    assert str(caught.value).endswith(shlex.join(command))


@pytest.mark.parametrize(
    "vae",
    [
        VaeSource("/nowhere", "cpu", "load", memory_saving=False),
        VaeSource("/nowhere", "cpu", "float32", memory_saving="yes"),  # type: ignore[arg-type]
        VaeSource(3, "cpu", "float32", memory_saving=False),  # type: ignore[arg-type]
    ],
)
def test_a_foreign_description_of_the_vae_is_a_damaged_file(tmp_path, vae):
    file = save_unfinished(dataclasses.replace(unfinished(tmp_path / "v.mp4"), vae=vae))
    with pytest.raises(RecordError, match="damaged or was not saved by this library"):
        load_unfinished(file)


# Silently wrong


class Spoiled:
    """A DiT whose velocity holds one value that is not a number."""

    def __init__(self, dit):
        self._dit = dit

    def __getattr__(self, name):
        return getattr(self._dit, name)

    def step(self, *arguments):
        velocity = self._dit.step(*arguments).clone()
        velocity[0, 0, 0, 0] = float("nan")
        return velocity


@pytest.mark.parametrize("kind", ["file", "np", "latent"])
def test_latents_that_are_not_finite_are_an_error(pipe, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    spoiled = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, dit=Spoiled(pipe.dit)))
    with pytest.raises(DecodeError, match=r"not finite: the weights may be damaged.*latents are saved in"):
        spoiled("a cat", tmp_path / "v.mp4", output_type=kind, **CALL)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(SUFFIX)
    assert load_unfinished(left)[0].latents.isnan().any()


def test_a_batch_notes_what_is_not_finite_as_failed(pipe, tmp_path):
    spoiled = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, dit=Spoiled(pipe.dit)))
    items = make_items(["a cat"], {**CALL, "time_length": 0}, model_set=pipe.model_set)
    result = run_batch(spoiled, items, tmp_path / "videos")
    assert result is not None
    assert (result.made, list(result.failed)) == (0, ["0001.png"])
    assert "not finite" in result.failed["0001.png"]


def test_frames_that_are_not_finite_are_an_error(pipe, tmp_path):
    kernel = pipe.vae._decoder.weights.conv_out.kernels[0]
    first = (0,) * kernel.ndim
    before = kernel[first].item()
    kernel[first] = float("nan")
    try:
        with pytest.raises(DecodeError, match="decoded frames hold values that are not finite"):
            pipe("a cat", tmp_path / "v.mp4", **CALL)
    finally:
        kernel[first] = before
    assert [path.name for path in tmp_path.iterdir()] == [f"v{SUFFIX}"]


LEAKS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "gradients": torch.enable_grad,
    "inference mode": torch.inference_mode,
}


@pytest.fixture(scope="module")
def latents(pipe):
    """Of a call whose caller has changed nothing."""
    return pipe("a cat", output_type="latent", **CALL)


@pytest.fixture(scope="module")
def frames(pipe):
    """Of the same call."""
    return pipe("a cat", output_type="np", **CALL)


@pytest.mark.parametrize("leak", LEAKS)
def test_the_callers_contexts_do_not_leak_in(pipe, small_weights, leak, latents, frames):
    with LEAKS[leak]():
        assert torch.equal(pipe("a cat", output_type="latent", **CALL), latents)
        loaded = Kandinsky4T2VPipeline.from_pretrained(small_weights, device_map="cpu", progress=False)
        assert torch.equal(loaded("a cat", output_type="latent", **CALL), latents)
        assert np.array_equal(pipe("a cat", output_type="np", **CALL), frames)


def test_the_callers_switches_do_not_leak_in_and_are_left_as_they_were(pipe, latents):
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    try:
        assert torch.equal(pipe("a cat", output_type="latent", **CALL), latents)
        with isolated():
            assert torch.get_default_dtype() == torch.float32
            assert not torch.backends.cudnn.benchmark
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.benchmark
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark = False


def test_calls_of_one_pipeline_wait_for_each_other(pipe):
    seeds = (3, 4, 5)
    alone = {seed: pipe("a cat", output_type="latent", **{**CALL, "seed": seed}) for seed in seeds}
    together, running = {}, []

    def on_step(*_step):
        running.append(threading.get_ident())

    def call(seed):
        together[seed] = pipe("a cat", output_type="latent", on_step=on_step, **{**CALL, "seed": seed})

    threads = [threading.Thread(target=call, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[seed], alone[seed]) for seed in seeds)
    turns = [running[index : index + 4] for index in range(0, 12, 4)]
    assert all(len(set(turn)) == 1 for turn in turns)  # four steps of one call, then of the next


# Waiting in silence, and several processes


@pytest.fixture
def launcher(monkeypatch):
    """The variables of a launcher that is not there."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_waiting_says_for_what_and_why(launcher, capsys):
    assert ranks_module.PATIENCE < 2
    launcher.setattr(ranks_module, "PATIENCE", LONG)
    with ranks_module._saying_what_is_waited_for(os.environ):
        pass
    assert capsys.readouterr().err == ""
    launcher.setattr(ranks_module, "PATIENCE", 0.05)
    with ranks_module._saying_what_is_waited_for(os.environ):
        said = until(lambda: capsys.readouterr().err)
    said += capsys.readouterr().err
    assert "waiting for 2 processes" in said
    assert "RANK=1, WORLD_SIZE=2, MASTER_ADDR=127.0.0.1, MASTER_PORT=1" in said
    assert "--no-distributed" in said


def test_a_launcher_can_be_ignored(launcher, small_weights, tmp_path):
    assert launched()
    settings = settings_of("cpu", cache_dir=small_weights, distributed=False)
    assert open_group(settings.devices["dit"], distributed=settings.distributed) == Ranks()
    command = ["generate", "--weights", str(small_weights), "--device", "cpu", "--time-length", "0", "--width", "64"]
    command += ["--height", "64", "--save-path", str(tmp_path / "v.png"), "--no-distributed", "--quiet"]
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        launcher.setenv(name, os.environ[name])  # put back afterwards
    assert main(command) == 0
    assert (tmp_path / "v.png").is_file()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE='two' in the environment: allowed is a whole number"),
        ("RANK", "", "RANK='' in the environment"),
        ("RANK", "7", "RANK=7, WORLD_SIZE=2 in the environment: allowed is 0 <= RANK < WORLD_SIZE"),
        ("LOCAL_RANK", "x", "LOCAL_RANK='x' in the environment"),
    ],
)
def test_a_wrong_variable_of_a_launcher_is_named(launcher, small_weights, name, value, message):
    launcher.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        if name == "LOCAL_RANK":
            ranks_module.local_rank()
        else:
            settings_of("cpu", cache_dir=small_weights)


def test_processes_that_work_alone_are_planned_for_alone(launcher):
    """Each has its own GPU, and a part of the host's memory."""
    assert ranks_module.processes_here() == 1
    launcher.setenv("LOCAL_WORLD_SIZE", "4")
    assert ranks_module.processes_here() == 4
    assert not NONE.one_video
    assert NONE.team(Ranks(1, 4)) == Ranks()
    assert TENSOR.team(Ranks(1, 4)) == Ranks(1, 4)


# Refused too late, or badly


def test_lossless_h264_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="crf=0: lossless h264, which browsers and QuickTime do not play.* crf=1"):
        output_of(tmp_path / "v.mp4", OutputOptions(crf=0), is_image=False, model_fps=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for codec, crf in (("h264", 1), ("hevc", 0)):
            output_of(tmp_path / "v.mp4", OutputOptions(crf=crf, codec=codec), is_image=False, model_fps=8)


@pytest.mark.parametrize(("crf", "profile"), [(0, "High 4:4:4 Predictive"), (1, "Constrained Baseline")])
def test_what_players_see_of_crf(pipe, tmp_path, crf, profile):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe("a cat", tmp_path / "v.mp4", crf=crf, **CALL)
    said = subprocess.run([ffmpeg(), "-i", tmp_path / "v.mp4"], capture_output=True, text=True, check=False).stderr
    assert f"h264 ({profile})" in said


def test_home_is_expanded_in_every_path(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pipe("a cat", "~/v.png", **{**CALL, "time_length": 0}).path == tmp_path / "v.png"
    (tmp_path / "weights").symlink_to(ROOT / "tests" / "weights")
    loaded = settings_of(
        "cpu", cache_dir="~/weights", dit_path="~/weights/kandinsky4_distil_512.pt", prompt_cache="~/c"
    )
    assert loaded.paths.vae == tmp_path / "weights" / "vae"
    assert loaded.prompt_cache == tmp_path / "c"
    check_target("~/w.mp4")
    with pytest.raises(ValueError, match=r"save_path='~nobody-has-this-name/v\.mp4': Could not determine home"):
        check_target("~nobody-has-this-name/v.mp4")


def test_a_long_prompt_is_not_printed_whole(pipe):
    long = "a very long prompt " * 5_000
    with pytest.warns(UserWarning, match="tokens, 223 are used; cut: ") as caught:
        pipe.text_encoder.encoder.tokenize(long)
    assert len(str(caught[0].message)) < 500
    assert "characters)" in str(caught[0].message)
    with pytest.raises(ValueError, match="allowed is text that UTF-8 can hold") as refused:
        pipe(long + "\ud800", **CALL)
    assert len(str(refused.value)) < 500


def test_a_missing_ffmpeg_is_named(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    with pytest.raises(ValueError, match=r"no-ffmpeg' \(IMAGEIO_FFMPEG_EXE\) is not a program"):
        pipe("a cat", tmp_path / "v.mp4", **CALL)


@pytest.mark.slow
def test_a_legacy_code_page_does_not_end_a_finished_run(small_weights, tmp_path):
    command = ["-m", "kandinsky", "generate", "--weights", str(small_weights), "--device", "cpu", "--time-length", "0"]
    command += ["--width", "64", "--height", "64", "--no-progress", "--save-path", str(tmp_path / "猫.png")]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    run = subprocess.run([sys.executable, *command], capture_output=True, env=environment, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert b"\\u732b.png: 64x64 image, seed 42" in run.stdout


def test_streams_that_are_no_terminal_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    from kandinsky.cli.common import Outcome, Parser

    assert parse_and_run(Parser(), [], lambda _parsed: Outcome(["said"], {})) == 0


def test_an_address_that_is_taken_is_refused_before_weights_are_loaded():
    import socket

    from kandinsky.serving.server import listen

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port}, host='127.0.0.1'"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()
    with pytest.raises(ValueError, match="port=70000"):
        listen("127.0.0.1", 70000)


def test_an_installed_package_that_does_not_import_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "uvicorn.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    with pytest.raises(
        ValueError, match="installed but does not import: No module named 'a_package_that_is_not_there'"
    ):
        serve.import_server()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ValueError, match=r"does not import|not installed"):
        serve.import_server()
