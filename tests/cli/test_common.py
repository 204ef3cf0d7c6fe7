"""How commands end and what they print where: exit codes, `--json`, `--quiet`, Ctrl-C."""

import dataclasses
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fakes import nothing
from helpers import SMALL, TINY

from kandinsky import errors
from kandinsky.cli.common import (
    Outcome,
    Parser,
    add_no_distributed,
    add_output_arguments,
    add_print_arguments,
    add_shape_arguments,
    file_argument,
    heed_no_distributed,
    load_pipeline,
    made,
    model_set_of,
    output_settings,
    parse_and_run,
    writes_here,
)
from kandinsky.cli.generate import add_generate_arguments
from kandinsky.cli.main import main
from kandinsky.config import FLASH_512
from kandinsky.errors import KandinskyError
from kandinsky.output.result import GenerationResult
from kandinsky.parallel.ranks import launched
from kandinsky.video_shape import VideoShape


@pytest.mark.parametrize(
    ("device", "is_main", "arguments", "said"),
    [
        ("cuda:0", True, [], "attention torch, kernels torch, memory disk; `kandinsky doctor` says why\n"),
        ("cuda:0", True, ["--quiet"], ""),
        ("cuda:0", False, [], ""),
        ("cpu", True, [], ""),
    ],
)
def test_what_auto_took_is_said_once_and_the_backends_are_handed_on(
    pipe, monkeypatch, capsys, tmp_path, device, is_main, arguments, said
):
    """A CPU has no choice."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "kandinsky4").mkdir()
    (tmp_path / "kandinsky4" / "attention.json").write_text("{}")
    given = {}
    parts = dataclasses.replace(pipe.parts, modes={"dit": "disk"})
    made = SimpleNamespace(
        dit=SimpleNamespace(device=torch.device(device)), ranks=SimpleNamespace(is_main=is_main), parts=parts
    )
    monkeypatch.setattr(
        "kandinsky.factory.get_T2V_pipeline", lambda _device, **settings: given.update(settings) or made
    )
    parser = Parser(prog="try")
    add_generate_arguments(parser)
    asked = ["--kernels", "torch", "--attention", "cudnn", "--retune", *arguments]
    assert load_pipeline(parser.parse_args(asked)) is made
    assert capsys.readouterr().err == said
    assert (given["kernels"], given["attention"]) == ("torch", "cudnn")
    assert not (tmp_path / "kandinsky4" / "attention.json").exists()


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


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_process_that_does_not_write_says_nothing(capsys, arguments):
    assert run(arguments, nothing) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:careful")
def test_json_is_one_line(capsys):
    assert run(["--json", "--quiet"], noisy) == 0
    output = capsys.readouterr()
    assert output.out == '{"status": "done", "exit_code": 0, "made": 2}\n'
    assert "from a library" in output.err


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (ValueError("width=1"), 2, "bad arguments"),
        (errors.NothingFits("too large"), 2, "bad arguments"),
        (FileNotFoundError("no weights"), 1, "failed"),
        (errors.CheckpointError("damaged"), 1, "failed"),
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


def test_every_error_of_ours_is_one_message(capsys):
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, KandinskyError):
            assert run([], raising(kind("what it says"))) == (2 if issubclass(kind, ValueError) else 1)
            assert capsys.readouterr().err == "error: what it says\n"


def test_unforeseen_errors_keep_their_traceback(capsys):
    with pytest.raises(ArithmeticError):
        run(["--json"], raising(ArithmeticError("odd")))
    assert json.loads(capsys.readouterr().out)["error"] == "ArithmeticError: odd"
    with pytest.raises(ArithmeticError):
        run([], raising(ArithmeticError("odd")))
    assert capsys.readouterr().out == ""


def test_notes_of_an_interruption(capsys):
    interrupt = KeyboardInterrupt()
    interrupt.add_note("its latents are saved")
    assert run(["--json"], raising(interrupt)) == 130
    output = capsys.readouterr()
    assert output.err == "interrupted\nits latents are saved\n"
    assert json.loads(output.out)["error"] == "interrupted\nits latents are saved"


def test_of_several_processes_whoever_started_them_tells_of_a_failure(capsys, monkeypatch):
    """Once for all."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run(["--json"], raising(ValueError("width=1"))) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "error: width=1\n"


def test_bad_arguments_are_one_message(capsys):
    assert run(["--nothing"], nothing) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: unrecognized arguments: --nothing\nusage: try")
    assert run(["--nothing", "--json"], nothing) == 2
    assert "--nothing" in json.loads(capsys.readouterr().out)["error"]


RESULT = GenerationResult(
    seed=3,
    timings={"sample": 1.25, "total": 2.5},
    peak_memory={"sample": 2**30},
    path=Path("v.mp4"),
    num_frames=9,
    fps=8,
)
SHAPE = VideoShape.from_request(1, 96, 64, model_set=SMALL)


def test_what_is_said_of_a_video():
    said = made([RESULT], SHAPE)
    assert said.lines == [
        "v.mp4: 9 frames of 96x64 at 8 fps, seed 3",
        "  sample    1.250 s, peak 1.00 GiB",
        "   total    2.500 s",
    ]
    assert json.loads(json.dumps(said.record)) == {
        "path": "v.mp4", "seed": 3, "num_frames": 9, "fps": 8, "width": 96, "height": 64,
        "timings": {"sample": 1.25, "total": 2.5}, "peak_memory": {"sample": 2**30},
    }  # fmt: skip
    assert made([], SHAPE) is None


def test_what_is_said_of_an_image():
    shape = VideoShape.from_request(0, 64, 64, model_set=SMALL)
    result = dataclasses.replace(RESULT, path=Path("i.png"), num_frames=1)
    assert made([result], shape).lines == ["i.png: 64x64 image, seed 3"]


def parsed(*arguments):
    parser = Parser()
    add_shape_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument("--weights", type=file_argument)
    return parser.parse_args(arguments)


def test_sizes_that_nobody_asked_for(small_weights):
    """Of the published weights the demonstration's, of others their own."""
    published = parsed("--weights", str(TINY), "--height", "512")
    assert model_set_of(published) == FLASH_512
    assert (published.width, published.height) == (672, 512)
    own = parsed("--weights", str(small_weights))
    assert model_set_of(own) == SMALL
    assert (own.width, own.height) == (None, None)


def test_options_of_a_file():
    nothing = dict.fromkeys(("fps", "crf", "codec", "interpolate", "interpolate_with"))
    assert output_settings(parsed("--weights", ".")) == {**nothing, "metadata": True}
    given = parsed(
        "--weights", ".", "--fps", "9", "--crf", "3", "--codec", "vp9", "--interpolate", "2", "--no-metadata"
    )
    said = {"fps": 9, "crf": 3, "codec": "vp9", "interpolate": 2}
    assert output_settings(given) == {**nothing, **said, "metadata": False}


def test_a_path_on_the_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert file_argument("~/frames/") == f"{tmp_path}/frames/"
    assert file_argument("./v.mp4") == "./v.mp4"


LAUNCHED = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(("rank", "each", "writes"), [("0", False, True), ("1", False, False), ("1", True, True)])
def test_only_who_writes_looks_at_the_target(monkeypatch, rank, each, writes):
    assert writes_here(each=each)
    for name, value in {**LAUNCHED, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    assert writes_here(each=each) == writes


def test_a_launcher_is_ignored_where_that_is_asked_for(monkeypatch):
    for name, value in {**LAUNCHED, "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    parser = Parser()
    add_no_distributed(parser)
    heed_no_distributed(parser.parse_args([]), num_gpus=2)
    assert launched()
    alone = parser.parse_args(["--no-distributed"])
    with pytest.raises(ValueError, match="--no-distributed with --num-gpus 2: allowed with it is 1"):
        heed_no_distributed(alone, num_gpus=2)
    assert launched()
    heed_no_distributed(alone)
    assert not launched()


@pytest.mark.parametrize("command", ["generate", "replay", "web"])
def test_what_may_wait_for_others_can_be_told_to_work_alone(command, capsys):
    """`ranks` names this argument when a process has waited for some time."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--no-distributed" in capsys.readouterr().out
