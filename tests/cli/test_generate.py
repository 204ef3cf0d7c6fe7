"""`kandinsky generate`: the request is made and checked before any weight is read."""

import pytest
from helpers import TINY

from kandinsky.cli import generate
from kandinsky.cli.common import writes_here
from kandinsky.cli.generate import DEMO_PROMPT
from kandinsky.cli.main import generate_main, main


@pytest.fixture
def asked(pipe, small_weights, monkeypatch):
    """Requests that reach the pipeline, and what it is loaded with; nothing is made."""
    seen = []

    class Pipe:
        def run(self, request):
            seen.append(request)
            return pipe.run(request)

    def load(parsed, *, prompt=None):
        seen.append((parsed.weights, prompt))
        return Pipe()

    monkeypatch.setattr(generate, "load_pipeline", load)
    return seen, ["--weights", str(small_weights), "--device", "cpu", "--width", "64", "--height", "64", "--quiet"]


def test_one_request_from_the_arguments(asked, tmp_path, monkeypatch):
    seen, arguments = asked
    monkeypatch.chdir(tmp_path)
    assert generate_main([*arguments, "--time-length", "0"]) == 0
    (weights, prompt), request = seen
    assert weights == arguments[1]
    assert prompt == DEMO_PROMPT
    assert [(job.prompt, job.seed, job.path.name) for job in request.jobs] == [(DEMO_PROMPT, 42, "test.png")]
    assert (tmp_path / "test.png").is_file()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--save-path", "/nowhere/v.mp4"],
        ["--seed", "-1"],
        ["--time-length", "64"],
        ["--fps", "0"],
        ["--num-gpus", "0"],
        ["--prompts", "/nowhere/p.txt", "--save-path", "x"],
    ],
)
def test_nothing_is_loaded_for_wrong_arguments(asked, tmp_path, monkeypatch, wrong):
    seen, arguments = asked
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *arguments, *wrong]) == 2
    assert seen == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rank", "parallelism", "writes"), [("0", "tensor", True), ("1", "tensor", False), ("1", "none", True)]
)
def test_only_who_writes_looks_at_the_target(monkeypatch, rank, parallelism, writes):
    class Parsed:
        pass

    parsed = Parsed()
    parsed.parallelism = parallelism
    assert writes_here(parsed)
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert writes_here(parsed) == writes


def test_weights_of_the_published_sizes_are_asked_with_the_demonstrations(capsys):
    assert generate_main(["--weights", str(TINY), "--device", "cpu", "--width", "100"]) == 2
    assert "width=100, height=384" in capsys.readouterr().err
