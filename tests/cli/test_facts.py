"""Facts of a machine, with pieces missing."""

import json
import subprocess
from pathlib import Path, PureWindowsPath

import pytest
import torch
from helpers import TINY

from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.cli import facts
from kandinsky.config import FLASH_512
from kandinsky.errors import NothingFits
from kandinsky.memory.choose import available_host
from kandinsky.model.attention import TORCH, Attention, torch_sdpa
from kandinsky.model.attention_choice import Trial
from kandinsky.model.precision import EXACT

CPU = torch.device("cpu")
HOME = Path("/home/ada")
TINY_PATHS = WeightPaths(
    TINY / FLASH_512.dit_file, TINY / "text_encoder", TINY / "tokenizer", TINY / "vae", TINY / "scheduler"
)


def test_the_system_can_be_written_as_json():
    found = facts.system()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"].startswith(torch.__version__.split("+", maxsplit=1)[0])
    assert found["packages"]["flash-attn"] == "not installed"
    assert found["free host memory, GB"] == pytest.approx(available_host() / 1e9, rel=0.5)


def test_a_machine_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert facts.gpus().startswith("none: ")
    assert facts.attention(CPU) == {"taken": "torch", "why": "the only one on this device"}


def test_a_card_that_is_lost_is_told(monkeypatch):
    def lost(_device):
        raise RuntimeError("CUDA error: device lost\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lost)
    assert facts.gpus() == [{"name": "GPU 0", "error": "RuntimeError: CUDA error: device lost"}]


def test_a_build_without_cuda_is_said(monkeypatch):
    """The card may be there all the same."""

    def not_compiled():
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "init", not_compiled)
    assert facts.gpus() == "none: AssertionError: Torch not compiled with CUDA enabled"


def test_no_compiler():
    found = facts.tools(which=lambda _name: None)["C compiler"]
    assert found.startswith("none found: Triton's kernels cannot be launched")


def test_a_compiler_that_does_not_run():
    def fails(command):
        if "--version" in command:
            raise subprocess.CalledProcessError(1, command)
        return "ffmpeg version 7 x"

    found = facts.tools(run=fails, which=lambda name: f"/usr/bin/{name}")
    assert found["C compiler"].startswith("cc does not run: CalledProcessError")
    assert found["ffmpeg"].startswith("ffmpeg version 7, writes h264")


def test_no_ffmpeg(monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    assert facts.tools()["ffmpeg"].startswith("no: ValueError: no ffmpeg to")


def test_an_ffmpeg_that_writes_nothing(monkeypatch):
    monkeypatch.setattr("kandinsky.output.video.codecs_here", list)
    assert facts.tools(run=lambda _: "ffmpeg version 7 x")["ffmpeg"] == "no: ffmpeg version 7 has none of the encoders"


def test_candidates_with_times_and_errors(monkeypatch):
    other = Attention("other", torch_sdpa)
    tried = [Trial(TORCH, milliseconds=1.5), Trial(other, error="OSError: x")]
    monkeypatch.setattr(facts, "candidates", lambda **_: [TORCH, other])
    monkeypatch.setattr(facts, "remembered_name", lambda *_, **__: None)
    found = facts.attention(CPU, try_all=lambda *_, **__: tried)
    assert found["tried"] == {"torch": "1.500 ms", "other": "OSError: x"}
    assert (found["taken"], found["why"].split(";")[0]) == ("torch", "the fastest now")
    monkeypatch.setattr(facts, "remembered_name", lambda *_, **__: "other")
    found = facts.attention(CPU, try_all=lambda *_, **__: tried)
    assert (found["taken"], found["why"]) == ("other", "remembered from an earlier run")
    monkeypatch.setattr(facts, "unasked", lambda backend, **_: backend)
    found = facts.attention(CPU, Attention("rough", torch_sdpa), try_all=lambda *_, **__: tried)
    assert (found["taken"], found["why"]) == ("rough", "it goes with the precision and runs here")


def test_weights_found_and_missing(tmp_path):
    assert facts.weights(TINY, FLASH_512, EXACT)["dit"] == "found: kandinsky4_distil_512.pt"
    found = facts.weights(tmp_path, FLASH_512, EXACT)
    assert all("is not there" in said for said in found.values())
    assert set(found) == set(WeightPaths.__dataclass_fields__)


def test_a_mode_for_a_cpu():
    assert facts.mode(TINY_PATHS, FLASH_512, EXACT, CPU).startswith("everything stays on the cpu: 0.0 GB of weights, ")


def test_weights_that_the_host_has_no_room_for(monkeypatch):
    monkeypatch.setattr(facts, "available_host", lambda: 10**6)
    with pytest.raises(NothingFits, match=r"everything stays on the cpu: 0\.0 GB of weights, 0\.0 GB are free"):
        facts.mode(TINY_PATHS, FLASH_512, EXACT, CPU)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada/my secret/x", "~/.../my secret/x"),
        ("cannot read '/home/ada/my secret/x' now", "cannot read '~/.../x' now"),
        ("/home/ada/the film/x.pt is not there", "~/.../the film/x.pt is not there"),
        ("/home/ada", "~/.../ada"),
        ("/home/ada/film/weights/a.pt is not there", "~/.../a.pt is not there"),
        ("open '/home/ada/w/b.json': no", "open '~/.../b.json': no"),
        ("/home/adam/w", "/home/adam/w"),
        ("/srv/weights", "/srv/weights"),
    ],
)
def test_the_home_folder_is_not_told(text, expected):
    assert facts.without_home({"a": [text, 3]}, HOME) == {"a": [expected, 3]}


def test_folders_that_are_known_may_have_spaces():
    known = [HOME / "our secret" / "weights", Path("/srv")]
    text = "/home/ada/our secret/weights/a.pt is not there, /srv/a neither"
    assert facts.without_home(text, HOME, known=known) == "~/.../weights/a.pt is not there, /srv/a neither"


@pytest.mark.parametrize(
    "text", [r"C:\Users\Ada\film\a.pt", "c:/users/ada/film/a.pt", repr(r"C:\Users\Ada\my film\a.pt")]
)
def test_a_home_on_windows(text):
    """Also as Python quotes it, and with the slashes of other programs."""
    assert facts.without_home(text, PureWindowsPath(r"C:\Users\Ada")).strip("'") == "~/.../a.pt"


def test_where_links_of_the_home_lead_is_not_told(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "ada").symlink_to(tmp_path / "disk")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "ada")
    assert facts.without_home(f"{tmp_path}/disk/film/x, {tmp_path}/ada/film/x") == "~/.../x, ~/.../x"


def test_a_home_that_is_the_root_hides_nothing():
    assert facts.without_home("/srv/x", Path("/")) == "/srv/x"
