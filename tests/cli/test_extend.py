"""`kandinsky extend`: what is refused before weights are loaded; what it makes is in tests/extend."""

import numpy as np
import pytest

from kandinsky.cli.main import main
from kandinsky.output.video import VideoWriter


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    with VideoWriter(tmp_path / "short.mp4", width=64, height=64, fps=8) as writer:
        writer.write(np.zeros((5, 64, 64, 3), np.uint8))
        writer.finish()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.mp4", "--seconds", "1"], "video='no.mp4': no such file"),
        (["bad.mp4", "--seconds", "1"], "video='bad.mp4' cannot be read"),
        (["short.mp4", "--seconds", "1"], "overlap=1 needs 9"),
        (["short.mp4", "--seconds", "0"], "seconds=0: allowed is 1"),
        (["short.mp4"], "--seconds"),
        (["short.mp4", "--seconds", "1", "--save-path", "short.mp4"], "name another file"),
    ],
)
def test_refused(here, arguments, message, capsys):
    before = sorted(here.iterdir())
    assert main(["extend", *arguments, "--text", "a cat", "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_resume_of_another_folder(here, capsys):
    assert main(["resume", str(here / "weights")]) == 1
    assert "is no folder of an unfinished extension" in capsys.readouterr().err
