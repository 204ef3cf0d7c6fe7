"""What each command of `training/` does with a device that is none, and with `~` in a path."""

from argparse import ArgumentParser
from importlib import import_module

import pytest

WEIGHTS = ["--weights", "~/w"]
PARSE = ArgumentParser.parse_args
COMMANDS = {
    "encode": ["~/videos", "~/out", *WEIGHTS],
    "teacher_data": ["~/out", *WEIGHTS, "--teacher", "~/t.safetensors", "--data", "~/data"],
    "world.vae": ["~/out", "--initial", "~/vae"],
    "world.data": ["~/out", *WEIGHTS],
    "world.novelty": ["data", "~/out", *WEIGHTS, "--json", "~/j.json"],
    "world.evaluate": [*WEIGHTS, "--teacher", "~/t.safetensors", "--student", "~/s.safetensors", "--json", "~/j.json"],
}


@pytest.fixture
def command(request, monkeypatch, tmp_path):
    """Its `main` and its arguments, in an empty folder that is the home too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return import_module(f"kandinsky.training.{request.param}").main, COMMANDS[request.param]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_device_that_is_none_is_one_message(command, device, capsys, tmp_path):
    """Not a traceback; nothing is read or written before."""
    main, arguments = command
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--device", device])
    assert end.value.code == 2
    assert f"argument --device: device='{device}'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_every_path_of_a_command_may_begin_at_home(command, monkeypatch, tmp_path):
    """What is parsed names no `~` any more."""
    main, arguments = command
    seen = []

    def stop(parser, given):
        seen.append(PARSE(parser, given))
        raise SystemExit

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", stop)
    with pytest.raises(SystemExit):
        main([*arguments, "--device", "cpu"])
    paths = [value for value in vars(seen[0]).values() if value is not None and str(tmp_path) in str(value)]
    assert len(paths) == sum("~" in argument for argument in arguments)
    assert "~" not in str(seen[0])
