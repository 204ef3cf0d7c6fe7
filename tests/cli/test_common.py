"""How commands end and what they print where: exit codes, `--json`, `--quiet`, Ctrl-C."""

import json
import warnings

import pytest
from PIL import Image

from kandinsky.cli import generate
from kandinsky.cli.common import Outcome, Parser, add_print_arguments, parse_and_run
from kandinsky.cli.main import main
from kandinsky.output.read_record import read_record
from kandinsky.output.video import VideoWriter

SETTINGS = ["--device", "cpu", "--time-length", "1", "--width", "64", "--height", "64"]


def run(arguments, command):
    parser = Parser(prog="try")
    add_print_arguments(parser)
    return parse_and_run(parser, arguments, command)


def noisy(_parsed):
    print("from a library")
    warnings.warn("careful", stacklevel=1)
    return Outcome(["two", "lines"], {"made": 2})


def raising(error):
    def command(_parsed):
        raise error

    return command


def test_lines_for_people(capsys):
    assert run([], lambda _: Outcome(["two", "lines"], {})) == 0
    assert capsys.readouterr().out == "two\nlines\n"
    assert run(["--quiet"], lambda _: Outcome(["two", "lines"], {}, code=1)) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("default")
def test_json_is_one_line(capsys):
    assert run(["--json", "--quiet"], noisy) == 0
    output = capsys.readouterr()
    assert output.out == '{"status": "done", "exit_code": 0, "made": 2}\n'
    assert "from a library" in output.err


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ValueError("width=1"), 2, "bad arguments"),
        (FileNotFoundError("no weights"), 1, "failed"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures(error, code, status, capsys):
    assert run(["--json"], raising(error)) == code
    output = capsys.readouterr()
    shown = json.loads(output.out)
    assert (shown["status"], shown["exit_code"]) == (status, code)
    assert (str(error) or "interrupted") in shown["error"]
    assert output.err.count("\n") == 1


def test_unforeseen_errors_keep_their_traceback(capsys):
    with pytest.raises(ArithmeticError):
        run(["--json"], raising(ArithmeticError("odd")))
    assert json.loads(capsys.readouterr().out)["error"] == "ArithmeticError: odd"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["generate", "--seed", "x"], "--seed: invalid int value: 'x'"),
        (["generate", "--nothing"], "unrecognized arguments: --nothing"),
        (["generate", "--text", "a", "--prompts", "b"], "not allowed with argument"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["generate", "--prompts", "p.txt"], "--prompts needs --save-path"),
    ],
)
def test_argparse_ends_with_2(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert main([*arguments, "--json"]) == 2
    assert message in json.loads(capsys.readouterr().out)["error"]


@pytest.fixture
def preloaded(pipe, small_weights, monkeypatch):
    """Commands make small sizes with a pipeline that is there; gives their arguments."""
    monkeypatch.setattr(generate, "load_pipeline", lambda *_, **__: pipe)
    return ["generate", *SETTINGS, "--weights", str(small_weights)]


def test_what_is_made(preloaded, tmp_path, capsys):
    target = tmp_path / "v.mp4"
    assert main([*preloaded, "--text", "a cat", "--save-path", str(target)]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"{target}: 9 frames of 64x64 at 8 fps, seed 42"
    assert [line.split()[0] for line in rest] == ["text", "sample", "decode", "write", "total"]
    target = tmp_path / "i.png"
    assert main([*preloaded, "--text", "a cat", "--time-length", "0", "--save-path", str(target)]) == 0
    assert Image.open(target).size == (64, 64)
    assert capsys.readouterr().out == f"{target}: 64x64 image, seed 42\n"


def test_what_is_made_as_json(preloaded, tmp_path, capsys):
    target = tmp_path / "v.mp4"
    assert main([*preloaded, "--text", "a cat", "--json", "--fps", "12", "--save-path", str(target)]) == 0
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
    assert main(["show", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"]["prompt"] == "a cat"


def test_notes_of_an_interruption(capsys):
    interrupt = KeyboardInterrupt()
    interrupt.add_note("its latents are saved")
    assert run(["--json"], raising(interrupt)) == 130
    output = capsys.readouterr()
    assert output.err == "interrupted\nits latents are saved\n"
    assert json.loads(output.out)["error"] == "interrupted\nits latents are saved"


def test_batch_from_the_command_line(preloaded, tmp_path, capsys):
    prompts, folder = tmp_path / "p.jsonl", tmp_path / "videos"
    lines = [{"text": "a cat", "save_path": "v.mkv", "codec": "vp9"}, {"text": "a dog", "time_length": 0, "fps": None}]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    arguments = [*preloaded, "--fps", "12", "--prompts", str(prompts), "--save-path", str(folder)]
    assert main([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["made"], shown["skipped"], shown["failed"]) == (2, 0, {})
    assert [path.name for path in sorted(folder.glob("[!.]*"))] == ["0002.png", "report.jsonl", "v.mkv"]
    assert read_record(folder / "v.mkv").fps == 12
    assert main(arguments) == 0
    assert "0 made, 2 done before, 0 failed" in capsys.readouterr().out


def test_failed_items_are_listed(preloaded, tmp_path, capsys, monkeypatch, pipe):
    (tmp_path / "p.txt").write_text("a cat\n")
    folder = tmp_path / "videos"
    arguments = [*preloaded, "--prompts", str(tmp_path / "p.txt"), "--save-path", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr(pipe, "sample", lambda *_, **__: raising(RuntimeError("broken"))(None))
        assert main(arguments) == 1
    assert "failed: 0001.mp4: RuntimeError: broken" in capsys.readouterr().out
    monkeypatch.setattr(VideoWriter, "finish", lambda _: 1 / 0)
    assert main([*arguments, "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["status"] == "failed"
    assert f"kandinsky resume {folder}/0001.latents.safetensors" in shown["failed"]["0001.mp4"]
