"""Videos with captions to shards: what is passed over, and what an end in the middle leaves."""

import json
import os
import signal

import pytest
import torch
from helpers import TINY, just_saved, own_weights
from video_helpers import SIZES, write_captions, write_video

from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.config import FLASH_512
from kandinsky.loading.components import load_vae
from kandinsky.training import encode as encode_module
from kandinsky.training.data import ShardDataset
from kandinsky.training.encode import encode
from kandinsky.training.video_probe import UnreadableVideoError
from kandinsky.training.videos import read_clip
from kandinsky.user_files.lines import MAX_LINE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The tiny weights with sizes of their own."""
    folder = tmp_path_factory.mktemp("weights")
    for part in TINY.iterdir():
        if part.name != "model_set.json":
            (folder / part.name).symlink_to(part)
    write_model_set(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos, a file that is none, a file that is not there, and a line that is none."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", frames=17)
    write_video(folder / "-b 1.mp4", frames=14, width=96)
    write_video(folder / "c.mp4", frames=60, fps=24)
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    write_captions(folder, ["a.mp4", "broken.mp4", "-b 1.mp4", "gone.mp4", "c.mp4"])
    lines = (folder / "captions.jsonl").read_text().splitlines()
    (folder / "captions.jsonl").write_text("\n".join([*lines, "{", lines[0]]) + "\n")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """No models and no videos: each file is a clip of its own; returns what was read."""
    read = []

    class Encoder:
        def __init__(self, *_):
            pass

        def __call__(self, entry, frames):
            return encode_module.Encoded(entry.file, entry.caption, frames, torch.zeros(3, 5))

    def read_one(path, *_, **__):
        read.append(path.name)
        return torch.zeros(1, 2, 2, 4)

    monkeypatch.setattr(encode_module, "Encoder", Encoder)
    monkeypatch.setattr(encode_module, "check_source", lambda *_: None)
    monkeypatch.setattr(encode_module, "read_clip", read_one)
    return read


def reported(out):
    return [json.loads(line)["file"] for line in (out / "report.jsonl").read_text().splitlines()]


def ids(out):
    return [item.id for item in ShardDataset(out).items]


def test_bad_files_are_reported_and_nothing_is_done_twice(videos, weights, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    bad = ["captions.jsonl:6", "captions.jsonl:7", "broken.mp4", "gone.mp4"]
    assert encode(videos, out, weights=weights, device=CPU) == (3, 4)
    assert reported(out) == bad
    assert "skipped gone.mp4: no such file" in capsys.readouterr().err
    data = ShardDataset(out)
    assert [item.id for item in data.items] == ["a.mp4", "-b 1.mp4", "c.mp4"]
    assert [item.shape for item in data.items] == [(5, 4, 4, 16), (3, 4, 6, 16), (5, 4, 4, 16)]
    latents, text = data.read(data.items)
    expected = load_vae(weights / "vae", device=CPU, dtype=torch.float32).encode(read_clip(videos / "a.mp4", SIZES))
    assert torch.equal(latents[0], expected.bfloat16())
    assert text[0].shape == (12, 64)

    read = []
    monkeypatch.setattr(encode_module, "read_clip", lambda path, *_, **__: read.append(path.name) or fail())
    assert encode(videos, out, weights=weights, device=CPU) == (0, 4)
    assert sorted(read) == ["broken.mp4", "gone.mp4"]
    assert reported(out) == bad
    monkeypatch.undo()
    check_other_weights_are_refused(videos, out, weights, tmp_path / "other")


def fail():
    raise UnreadableVideoError("no")


def check_other_weights_are_refused(videos, out, weights, other):
    other.mkdir()
    for part in weights.iterdir():
        (other / part.name).symlink_to(part)
    (other / "model_set.json").unlink()
    write_model_set(other, FLASH_512)
    with pytest.raises(ValueError, match=r"out=.* was begun with"):
        encode(videos, out, weights=other, device=CPU)
    (out / "encoding.json").write_text("{")  # cut off
    with pytest.raises(ValueError, match=r"encoding.json is not JSON"):
        encode(videos, out, weights=weights, device=CPU)


def test_weights_that_were_just_saved(weights, videos, tmp_path):
    """They are those that were saved, wherever their parts are, and whatever of older ones stands beside them."""
    saved = just_saved(own_weights(tmp_path / "w", SIZES))
    (saved / "vae").mkdir()
    (saved / "vae" / "config.json").write_text("an old one")
    encode_module.check_source(tmp_path, weights, SIZES)
    encode_module.check_source(tmp_path, saved, SIZES)
    entry, frames = encode_module.Entry("a.mp4", "a cat"), read_clip(videos / "a.mp4", SIZES)
    one, other = (encode_module.Encoder(folder, CPU, SIZES)(entry, frames) for folder in (weights, saved))
    assert torch.equal(one.latents, other.latents)
    assert torch.equal(one.text, other.text)


def test_wrong_arguments(videos, weights, tmp_path):
    with pytest.raises(ValueError, match=r"seconds=\[3\]: allowed are 1 to 2"):
        encode(videos, tmp_path / "out", weights=weights, device=CPU, seconds=[3])
    with pytest.raises(ValueError, match="per_shard=0: allowed is 1 and more"):
        encode(videos, tmp_path / "out", weights=weights, device=CPU, per_shard=0)


def test_without_ffmpeg_nothing_is_begun(videos, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    monkeypatch.setattr(encode_module, "check_source", lambda *_: pytest.fail("weights were opened"))
    with pytest.raises(ValueError, match="no ffmpeg to read or write videos with: '/nowhere/ffmpeg'"):
        encode(videos, tmp_path / "out", weights=weights, device=CPU)
    assert list(tmp_path.iterdir()) == []


OUTSIDE = "allowed is a path inside of the captions' folder"
BAD_LINES = {
    "half a pair in the caption": (
        b'{"file": "a", "caption": "\\ud800"}',
        "caption='\\ud800': allowed is text that UTF-8 can",
    ),
    "half a pair in the file": (
        b'{"file": "\\udcff.mp4", "caption": ""}',
        "file='\\udcff.mp4': allowed is text that UTF-8 can",
    ),
    "bytes": (b'{"file": "a", "caption": "caf\xe9"}', "is not UTF-8: invalid continuation byte at byte 66"),
    "bytes of half a pair": (b'{"file": "a", "caption": "\xed\xa0\x80"}', "is not UTF-8: invalid continuation byte at"),
    "null": (b'{"file": "a", "caption": "\0"}', "null byte at byte 63"),
    "not JSON": (b"{", "not JSON: "),
    "deep": (b"[" * 100_000, "not JSON: "),
    "large number": (b"1" * 5000, "not JSON: "),
    "list": (b"[]", 'allowed is {"file": "...", "caption": "..."}'),
    "no caption": (b'{"file": "a"}', 'allowed is {"file": "...", "caption": "..."}'),
    "caption of another kind": (b'{"file": "a", "caption": null}', 'allowed is {"file": "...", "caption": "..."}'),
    "long": (b'{"file": "a", "caption": "' + b"x" * 10_000_000 + b'"}', f"is longer than {MAX_LINE} bytes"),
    "above": (b'{"file": "../a", "caption": ""}', f"file='../a': {OUTSIDE}"),
    "above, later": (b'{"file": "b/../../a", "caption": ""}', f"file='b/../../a': {OUTSIDE}"),
    "root": (b'{"file": "/etc/passwd", "caption": ""}', f"file='/etc/passwd': {OUTSIDE}"),
    "null in the file": (b'{"file": "a\\u0000", "caption": ""}', OUTSIDE),
    "no name": (b'{"file": "", "caption": ""}', f"file='': {OUTSIDE}"),
    "the folder": (b'{"file": ".", "caption": ""}', f"file='.': {OUTSIDE}"),
    "again": (b'{"file": "first.mp4", "caption": ""}', "first.mp4 is listed before"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.usefixtures("quick")
def test_a_bad_line_is_one_bad_line(weights, tmp_path, capsys, case):
    line, message = BAD_LINES[case]
    lines = [b'{"file": "first.mp4", "caption": ""}', line, b'{"file": "last.mp4", "caption": ""}', b""]
    (tmp_path / "captions.jsonl").write_bytes(b"\n".join(lines))
    assert encode(tmp_path, tmp_path / "out", weights=weights, device=CPU) == (2, 1)
    (entry,) = map(json.loads, (tmp_path / "out" / "report.jsonl").read_text().splitlines())
    assert entry["file"] == "captions.jsonl:2"
    assert message in entry["error"]
    assert "skipped captions.jsonl:2: " in capsys.readouterr().err
    assert ids(tmp_path / "out") == ["first.mp4", "last.mp4"]


@pytest.mark.usefixtures("quick")
def test_captions_of_any_editor(weights, tmp_path):
    """A mark, CR LF, blank lines, line separators in captions, a null that JSON names, and two files put together."""
    texts = ["ein Hund\u2028bellt\x85", "кот 🐦", "null \0", ""]
    lines = [json.dumps({"file": f"{n}.mp4", "caption": text}, ensure_ascii=False) for n, text in enumerate(texts)]
    lines[2] = json.dumps({"file": "2.mp4", "caption": texts[2]})
    content = "\ufeff" + "\r\n\r\n".join(lines[:2]) + "\r\n\ufeff" + "\n".join(lines[2:])
    (tmp_path / "captions.jsonl").write_bytes(content.encode())
    assert encode(tmp_path, tmp_path / "out", weights=weights, device=CPU) == (4, 0)
    assert [item.caption for item in ShardDataset(tmp_path / "out").items] == texts


@pytest.mark.usefixtures("quick")
def test_names_print_nothing_but_themselves(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(encode_module, "read_clip", lambda *_, **__: fail())
    write_captions(tmp_path, ["a\x1b[2J\n.mp4", "é.mp4"])
    assert encode(tmp_path, tmp_path / "out", weights=weights, device=CPU) == (0, 2)
    assert reported(tmp_path / "out") == ["a\x1b[2J\n.mp4", "é.mp4"]
    said = capsys.readouterr().err
    assert "skipped a\\x1b[2J\\n.mp4: no" in said
    assert "skipped é.mp4: no" in said


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError, torch.OutOfMemoryError, UnreadableVideoError])
def test_clips_that_wait_for_their_shard_are_not_lost(quick, weights, tmp_path, monkeypatch, end):
    names = [f"{n}.mp4" for n in range(7)]
    write_captions(tmp_path, names)
    read_one = encode_module.read_clip

    def end_at_the_fifth(path, *arguments, **settings):
        if path.name == "4.mp4":
            raise end
        return read_one(path, *arguments, **settings)

    monkeypatch.setattr(encode_module, "read_clip", end_at_the_fifth)
    settings = {"weights": weights, "device": CPU, "per_shard": 3}
    if end in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(end):
            encode(tmp_path, tmp_path / "out", **settings)
        assert ids(tmp_path / "out") == names[:4]
    else:  # what ends one clip alone
        assert encode(tmp_path, tmp_path / "out", **settings) == (6, 1)
        assert reported(tmp_path / "out") == ["4.mp4"]
    monkeypatch.setattr(encode_module, "read_clip", read_one)
    done = ids(tmp_path / "out")
    quick.clear()
    assert encode(tmp_path, tmp_path / "out", **settings) == (7 - len(done), 0)
    assert not {*quick} & {*done}
    assert sorted(ids(tmp_path / "out")) == names
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.usefixtures("quick")
def test_what_ends_a_process_is_an_interruption(weights, tmp_path, monkeypatch, capsys, name):
    number = getattr(signal, name)
    names = [f"{n}.mp4" for n in range(20)]
    write_captions(tmp_path, names)
    encoder = encode_module.Encoder

    class Ended(encoder):
        def __call__(self, entry, frames):
            if entry.file == "5.mp4":
                os.kill(os.getpid(), number)
            return super().__call__(entry, frames)

    monkeypatch.setattr(encode_module, "Encoder", Ended)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    for each in before:  # whoever started the tests (nohup, a script's background) may have had them ignored
        signal.signal(each, signal.default_int_handler if each is signal.SIGINT else signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended:
            encode_module.main([str(tmp_path), str(tmp_path / "out"), "--weights", str(weights), "--device", "cpu"])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert ids(tmp_path / "out") == names[:5]


def test_a_command_ends_without_a_traceback(weights, tmp_path, capsys):
    arguments = [str(tmp_path), str(tmp_path / "out"), "--weights", str(weights), "--device", "cpu"]
    for content, code, message in (
        (None, 1, "captions.jsonl: no such file"),
        ("{}".encode("utf-16"), 2, "captions.jsonl is not UTF-8: its first bytes are the mark of UTF-16"),
    ):
        if content is not None:
            (tmp_path / "captions.jsonl").write_bytes(content)
        with pytest.raises(SystemExit) as ended:
            encode_module.main(arguments)
        assert ended.value.code == code
        assert f"error: {tmp_path}/{message}" in capsys.readouterr().err
