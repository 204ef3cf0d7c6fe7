"""`kandinsky generate`: the request is made and checked before any weight is read."""

import json
import shlex

import pytest
from fakes import FAILS_AT_THE_END, QuickVae, WatchedDit, changed, ffmpeg_script
from helpers import TINY
from PIL import Image

from kandinsky.cli.common import Parser, parse_and_run
from kandinsky.cli.generate import DEMO_PROMPT, add_generate_arguments, generate
from kandinsky.cli.main import generate_main, main
from kandinsky.output.read_record import read_record


@pytest.fixture
def command(pipe, small_weights, tmp_path, monkeypatch):
    """Runs the command in an empty folder with a pipeline that is there; `command.loaded` is what was asked for."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **parts):
        parser = Parser(prog="generate")
        add_generate_arguments(parser)

        def load(parsed, *, prompt=None):
            run.loaded.append((parsed.weights, parsed.device, prompt))
            return changed(pipe, **{"vae": QuickVae(), **parts})

        settings = ["--weights", str(small_weights), "--device", "cpu"]
        return parse_and_run(parser, [*settings, *arguments], lambda parsed: generate(parsed, arguments=[], load=load))

    run.loaded = []
    return run


SHORT = ("--time-length", "1")
IMAGE = ("--time-length", "0")


def test_without_arguments_it_makes_the_demonstration(command, tmp_path, small_weights, capsys):
    """At the length and the size of its weights."""
    assert command(*IMAGE) == 0
    assert command.loaded == [(str(small_weights), "cpu", DEMO_PROMPT)]
    assert capsys.readouterr().out == "test.png: 64x64 image, seed 42\n"
    assert [path.name for path in tmp_path.iterdir()] == ["test.png"]
    assert read_record(tmp_path / "test.png").prompt == DEMO_PROMPT
    assert command(*SHORT, "--quiet") == 0
    assert (tmp_path / "test.mp4").is_file()


def test_what_is_made(command, tmp_path, capsys):
    target = tmp_path / "v.mp4"
    assert command(*SHORT, "--width", "96", "--text", "a cat", "--save-path", str(target), "--seed", "7") == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"{target}: 9 frames of 96x64 at 8 fps, seed 7"
    assert [line.split()[0] for line in rest] == ["text", "sample", "decode", "write", "total"]


def test_on_a_cpu_it_says_how_long_it_will_take(command, tmp_path, capsys, monkeypatch):
    """Before it starts and after the first step; of a batch, for its first video."""
    monkeypatch.setattr("kandinsky.cli.estimate.SHORT_SECONDS", 0)
    assert command(*SHORT, "--save-path", "v.mp4") == 0
    before, after = [line for line in capsys.readouterr().err.splitlines() if "about" in line]
    assert before.startswith("64x64, 1 s on cpu: about ")
    assert before.endswith("; --time-length 0 makes an image, in a fraction of the time")
    assert after.startswith("the first of 4 steps took ")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    assert command(*SHORT, "--prompts", "prompts.txt", "--save-path", "videos") == 0
    assert "64x64, 1 s on cpu: about " in capsys.readouterr().err
    assert command(*SHORT, "--quiet", "--save-path", "v.mp4") == 0
    assert "about" not in capsys.readouterr().err


def test_what_is_made_as_json(command, tmp_path, capsys):
    target = tmp_path / "v.mp4"
    assert command(*SHORT, "--text", "a cat", "--json", "--fps", "12", "--save-path", str(target)) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown.pop("timings")) == {"text", "sample", "decode", "write", "total"}
    assert shown == {
        "status": "done",
        "exit_code": 0,
        "path": str(target),
        "seed": 42,
        "width": 64,
        "height": 64,
        "num_frames": 9,
        "fps": 12,
        "peak_memory": {},
    }


def test_an_image(command, tmp_path, capsys):
    assert command(*IMAGE, "--text", "a cat", "--save-path", "i.webp", "--no-metadata") == 0
    assert Image.open(tmp_path / "i.webp").size == (64, 64)
    assert capsys.readouterr().out == "i.webp: 64x64 image, seed 42\n"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--time-length", "64"], "time_length=64: allowed is 0"),
        (["--width", "100"], "width=100, height=64"),
        (["--seed", "-1"], "seed=-1"),
        (["--seed", "x"], "--seed: invalid int value: 'x'"),
        (["--fps", "0"], "fps=0: allowed is 1 to 120"),
        (["--save-path", "v.txt"], "must end with one of .mp4"),
        (["--save-path", "v.mp4", "--time-length", "0"], "must end with one of .png"),
        (["--save-path", "/nowhere/v.mp4"], "the folder '/nowhere' does not exist"),
        (["--num-gpus", "0"], "num_gpus=0: allowed is 1 and more"),
        (["--num-gpus", "2", "--no-distributed"], "--no-distributed with --num-gpus 2: allowed with it is 1"),
        (["--parallelism", "all"], "invalid choice: 'all'"),
        (["--nothing"], "unrecognized arguments: --nothing"),
        (["--text", "a", "--prompts", "b"], "not allowed with argument"),
        (["--prompts", "p.txt"], "--prompts needs --save-path"),
        (["--prompts", "none.txt", "--save-path", "videos"], "prompts='none.txt' cannot be read"),
        (["--prompts", "p.csv", "--save-path", "videos"], "must end with .txt"),
        (["--weights", "damaged"], "model_set.json"),
    ],
)
def test_nothing_is_loaded_for_wrong_arguments(command, tmp_path, capsys, wrong, message):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model_set.json").write_text("{}")
    damaged = "damaged" in wrong  # which is a file's fault
    assert command(*wrong) == (1 if damaged else 2)
    assert message in capsys.readouterr().err
    assert command.loaded == []
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


class LoadedError(Exception):
    """Raised where the weights would be loaded."""


@pytest.mark.parametrize("parallelism", ["tensor", "none"])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_who_writes_looks_at_the_target(small_weights, tmp_path, monkeypatch, rank, parallelism):
    """One request is the first process's, however several work; of a batch each has a share if each works alone."""
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "p.txt").write_text("a cat\n")
    (tmp_path / "file").touch()

    def load(*_given, **_options):
        raise LoadedError

    def looks(*arguments):
        parser = Parser(prog="generate")
        add_generate_arguments(parser)
        settings = ["--weights", str(small_weights), *IMAGE, "--parallelism", parallelism]
        with pytest.raises((ValueError, LoadedError)) as ended:
            generate(parser.parse_args([*settings, *arguments]), arguments=[], load=load)
        refused = ended.type is ValueError
        assert ("save_path=" in str(ended.value)) == refused
        return refused

    assert looks("--save-path", "/nowhere/i.png") == (rank == "0")
    batch = looks("--prompts", str(tmp_path / "p.txt"), "--save-path", str(tmp_path / "file"))
    assert batch == (rank == "0" or parallelism == "none")


def test_what_the_loader_refuses(capsys, tmp_path, monkeypatch):
    """With the real one: a device, and weights that are missing or damaged."""
    monkeypatch.chdir(tmp_path)
    assert generate_main(["--weights", str(TINY), "--device", "cuda:99"]) == 2
    assert "device_map='cuda:99' does not exist on this machine" in capsys.readouterr().err
    assert generate_main(["--weights", str(TINY), "--device", "cpu", "--width", "100"]) == 2
    assert "width=100, height=384" in capsys.readouterr().err
    (tmp_path / "w").mkdir()
    for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / "w" / name).symlink_to(TINY / name)
    (tmp_path / "w" / "kandinsky4_distil_512.pt").write_bytes(b"not a checkpoint")
    assert generate_main(["--weights", str(tmp_path / "w"), "--device", "cpu"]) == 1
    assert "kandinsky4_distil_512.pt is truncated or not a PyTorch state dict" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_it_loads_for_itself(small_weights, tmp_path):
    target = tmp_path / "i.png"
    arguments = ["--weights", str(small_weights), "--device", "cpu", *IMAGE, "--save-path", str(target), "--quiet"]
    assert main(["generate", *arguments]) == 0
    assert Image.open(target).size == (64, 64)


def test_a_failure_names_the_command_that_finishes(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "program").mkdir()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path / "program", FAILS_AT_THE_END))
    assert command(*SHORT, "--save-path", "v.mp4", "--json") == 1
    output = capsys.readouterr()
    assert f"to finish it: kandinsky resume {shlex.quote(f'{tmp_path}/v.latents.safetensors')}" in output.err
    assert json.loads(output.out)["status"] == "failed"


def test_a_batch(command, tmp_path, capsys):
    lines = [{"text": "a cat", "save_path": "v.mkv", "codec": "vp9"}, {"text": "a dog", "time_length": 0, "fps": None}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = [*SHORT, "--fps", "12", "--prompts", "p.jsonl", "--save-path", "videos"]
    assert command(*arguments, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["made"], shown["skipped"], shown["failed"]) == (2, 0, {})
    assert (shown["folder"], shown["report"]) == ("videos", "videos/report.jsonl")
    assert shown["per_hour"] == pytest.approx(3600 * 2 / shown["seconds"])
    assert [path.name for path in sorted((tmp_path / "videos").glob("[!.]*"))] == ["0002.png", "report.jsonl", "v.mkv"]
    assert read_record(tmp_path / "videos" / "v.mkv").fps == 12
    assert command(*arguments) == 0
    assert "videos: 0 made, 2 done before, 0 failed; 0.0 an hour" in capsys.readouterr().out


def test_failed_items_are_listed(command, tmp_path, capsys, pipe):
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    steps = []

    def fail(_index):
        steps.append(1)
        if len(steps) == 2:
            raise ArithmeticError("broken")

    arguments = [*IMAGE, "--prompts", "p.txt", "--save-path", "images"]
    assert command(*arguments, dit=WatchedDit(pipe.dit, fail)) == 1
    output = capsys.readouterr().out
    assert "images: 1 made, 0 done before, 1 failed" in output
    assert "failed: 0001.png: ArithmeticError: broken" in output
    assert command(*arguments, "--json") == 0  # tried again
    assert json.loads(capsys.readouterr().out)["skipped"] == 1
