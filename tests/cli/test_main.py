"""The command, as a script, a module and a function; what its help says."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

from kandinsky.cli.main import generate_main, main

COMMANDS = (
    "generate", "extend", "serve", "web", "resume", "show", "replay", "interpolate", "sound", "plan", "doctor",
    "random-weights", "convert",
)  # fmt: skip


def run(file, *arguments):
    """The file as Python runs it, and whether torch was imported for that."""
    code = (
        f"import runpy, sys; sys.argv = {['command', *arguments]!r}\n"
        f"try: runpy.run_path({str(ROOT / file)!r}, run_name='__main__')\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_script_shows_the_published_demonstration():
    done = run("run_inference_distil.py", "--help")
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    for expected in (
        "wooly mammoths",
        "default: 672",
        "default: 384",
        "default: 12",
        "default: 42",
        "default: cuda)",
        "test.mp4",
    ):
        assert expected in said
    assert done.stderr == "False\n"  # so that it answers at once


def test_module_and_script_take_the_same_arguments(capsys):
    shown = []
    for command, arguments in ((generate_main, ["--help"]), (main, ["generate", "--help"])):
        with pytest.raises(SystemExit, match="0"):
            command(arguments)
        shown.append(set(re.findall(r"--[a-z-]+", capsys.readouterr().out)))
    assert shown[0] == shown[1]
    assert {"--prompts", "--json", "--crf", "--parallelism", "--sound"} <= shown[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"usage: kandinsky {command}" in capsys.readouterr().out


def test_commands_are_listed(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listed = re.findall(r"^    ([a-z-]+) ", capsys.readouterr().out, flags=re.MULTILINE)
    assert set(listed) == {*COMMANDS, "train-lora"}  # whose help is that of a process of its own


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "required: command"), (["nothing"], "invalid choice: 'nothing'")]
)
def test_no_such_command(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
