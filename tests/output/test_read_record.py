"""The record out of any file that a call writes."""

import subprocess

import pytest
from fakes import FFMPEG, QuickVae, changed
from PIL import Image

from kandinsky.errors import RecordError
from kandinsky.output.image import IMAGE_DESCRIPTION
from kandinsky.output.read_record import read_record
from kandinsky.output.record import differences

CALL = {"width": 64, "height": 64, "seed": 3}
NASTY = "a \"cat\" 'x'\n\r\n = ; # \\ \\n $(touch pwned) `id` | ../../etc/passwd %s \t\0 😀" + "😀" * 10_000


@pytest.fixture(scope="module")
def quick(pipe):
    return changed(pipe, vae=QuickVae())


@pytest.mark.filterwarnings("ignore:prompt has")
@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.webm", "v.gif", "v.webp", "frames/", "i.png", "i.webp"])
def test_any_prompt_survives(quick, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = quick(NASTY, name, time_length=0 if name.startswith("i.") else 1, **CALL)
    assert read_record(result.path).prompt == NASTY
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]


def test_a_jpg(quick, tmp_path):
    """Which has no room for such a prompt."""
    result = quick("a cat 😀", tmp_path / "i.jpg", time_length=0, **CALL)
    assert read_record(result.path).prompt == "a cat 😀"


def test_a_record_tells_everything(quick, tmp_path):
    result = quick("a cat", tmp_path / "v.mp4", time_length=1, fps=12, crf=20, codec="hevc", **CALL)
    record = read_record(result.path)
    assert (record.seed, record.width, record.height, record.time_length) == (3, 64, 64, 1)
    assert (record.fps, record.crf, record.codec) == (12, 20, "hevc")
    assert record.origin == quick.origin
    assert not differences(record, quick.origin)
    assert str(tmp_path) not in record.to_json()


def test_metadata_can_be_turned_off(quick, tmp_path):
    for name, seconds in (("v.mp4", 1), ("i.png", 0)):
        result = quick("a cat", tmp_path / name, time_length=seconds, metadata=False, **CALL)
        with pytest.raises(RecordError, match="has no record"):
            read_record(result.path)
        assert b"a cat" not in result.path.read_bytes()


def test_files_without_a_record(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png")
    (tmp_path / "v.mp4").write_bytes(b"no video")
    (tmp_path / "t.txt").write_text("no picture")
    (tmp_path / "folder").mkdir()
    for name in ("i.png", "v.mp4", "t.txt", "folder"):
        with pytest.raises(RecordError, match=f"{name} has no record of a generation"):
            read_record(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_record(tmp_path / "nothing.mp4")


DAMAGED = b'{"prompt": "caf\xe9"}'  # Latin-1: no half of a prompt is guessed


def write_video(path, comment):
    picture = ["-f", "lavfi", "-i", "color=size=64x64:rate=8:duration=1"]
    command = [FFMPEG, "-v", "error", *picture, "-metadata", b"comment=" + comment, str(path)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "i.jpg", "i.webp", "i.gif"])
def test_a_comment_that_is_not_utf8(tmp_path, name):
    path = tmp_path / name
    exif = Image.Exif()
    exif[IMAGE_DESCRIPTION] = DAMAGED
    if name.startswith("v"):
        write_video(path, DAMAGED)
    else:
        Image.new("RGB", (8, 8)).save(path, **({"comment": DAMAGED} if name == "i.gif" else {"exif": exif}))
    with pytest.raises(RecordError, match=rf"{name}: its comment is not a record of a generation \('utf-8' codec"):
        read_record(path)


def test_a_comment_of_somebody_else(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.gif", comment=b"my holidays")
    with pytest.raises(RecordError, match=r"i\.gif: its comment is not a record of a generation"):
        read_record(tmp_path / "i.gif")
