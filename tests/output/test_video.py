"""The written video as ffmpeg sees it, and what is left behind when writing fails."""

import re
import resource
import stat
import subprocess
import threading
import time

import numpy as np
import pytest
from fakes import FAILS_AT_THE_END, FFMPEG, ffmpeg_script
from imageio_ffmpeg import read_frames

from kandinsky.errors import VideoError
from kandinsky.output import video
from kandinsky.output.paths import VIDEO_CODECS
from kandinsky.output.video import (
    CODECS,
    MESSAGE_BYTES,
    QUEUED_CHUNKS,
    Encoding,
    VideoWriter,
    check_encoder,
    escape,
    read_comment,
)

KINDS = [(ending, codec) for ending, codecs in VIDEO_CODECS.items() for codec in codecs]
NASTY = "a \"cat\" 'x'\n\n = ; # \\ \\n $(touch pwned) `id` %s \t 😀 comment=no\n;FFMETADATA1\n[STREAM]"


def gradient(frames, height=32, width=48):
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(ramp[:, None], (frames, height, width, 3))


def write(path, frames, **settings):
    with VideoWriter(path, width=frames.shape[2], height=frames.shape[1], fps=8, **settings) as writer:
        for start in range(0, len(frames), 3):
            writer.write(frames[start : start + 3])
        writer.finish()
    return writer


def said_of(path):
    return subprocess.run([FFMPEG, "-i", path], capture_output=True, text=True, check=False).stderr


@pytest.fixture
def program(tmp_path_factory, monkeypatch):
    """Let a shell script take the place of encodings."""

    def put(script):
        folder = tmp_path_factory.mktemp("program")
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(folder, script))
        return folder

    return put


def test_video_is_what_was_asked_for(tmp_path):
    frames = gradient(9)
    write(tmp_path / "v.mp4", frames)
    assert re.search(r"Video: h264 .*yuv420p.*48x32.* 8 fps", said_of(tmp_path / "v.mp4"))
    reader = read_frames(tmp_path / "v.mp4")
    next(reader)
    read = np.stack([np.frombuffer(frame, np.uint8).reshape(32, 48, 3) for frame in reader])
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 3
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_every_codec_in_every_container(tmp_path, ending, codec):
    """The comment comes back as it was, and the same frames give the same bytes."""
    made = []
    for name in ("first", "second"):
        encoding = Encoding(codec, CODECS[codec].crf)
        write(tmp_path / f"{name}{ending}", gradient(3, 64, 64), encoding=encoding, comment=NASTY)
        made.append((tmp_path / f"{name}{ending}").read_bytes())
    said = said_of(tmp_path / f"first{ending}")
    assert re.search(rf"Video: {codec}\b", said)
    assert ("hvc1" in said) == (codec == "hevc" and ending in (".mp4", ".mov"))
    assert read_comment(tmp_path / f"first{ending}") == NASTY
    assert made[0] == made[1]


def planes_of(path):
    """Decoded Y, U and V of all frames."""
    command = [FFMPEG, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)


@pytest.mark.parametrize(("ending", "codec"), KINDS)
def test_the_file_says_how_its_colours_are_meant(tmp_path, ending, codec):
    """And they are: BT.601's red has a Y of 81, BT.709's 63; in the full range it would be 76."""
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (3, 64, 64, 3))
    write(tmp_path / f"v{ending}", red, encoding=Encoding(codec, CODECS[codec].crf))
    assert re.search(r"yuv420p\(tv, smpte170m", said_of(tmp_path / f"v{ending}"))
    assert np.abs(planes_of(tmp_path / f"v{ending}")[: 64 * 64].astype(int) - 81).max() <= 1


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_said_of_colours_changes_no_picture(tmp_path, codec, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    write(tmp_path / "said.mkv", noise, encoding=Encoding(codec, CODECS[codec].crf))
    monkeypatch.setattr(video, "COLOURS", ())
    write(tmp_path / "unsaid.mkv", noise, encoding=Encoding(codec, CODECS[codec].crf))
    assert np.array_equal(planes_of(tmp_path / "said.mkv"), planes_of(tmp_path / "unsaid.mkv"))


def test_quality_is_used(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    sizes = []
    for crf in (1, 20, 51):
        write(tmp_path / "v.mp4", noise, encoding=Encoding("h264", crf))
        sizes.append((tmp_path / "v.mp4").stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_what_has_no_comment(tmp_path):
    write(tmp_path / "v.mp4", gradient(3))
    (tmp_path / "w.mp4").write_bytes(b"no video")
    for name in ("v.mp4", "w.mp4", "none.mp4"):
        assert read_comment(tmp_path / name) is None


def test_a_value_of_a_tag_is_escaped():
    assert escape("a=b;c#d\\e\nf") == "a\\=b\\;c\\#d\\\\e\\\nf"
    assert escape("Ödipus") == "Ödipus"


def test_nobody_else_can_read_the_comment_on_its_way(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", width=48, height=32, fps=8, comment="secret") as writer:
        (tags,) = tmp_path.glob(".*.ffmetadata")
        assert stat.S_IMODE(tags.stat().st_mode) == 0o600
        assert "secret" in tags.read_text()
        writer.write(gradient(3))
        writer.finish()
        assert not tags.exists()  # also where a process is killed before it leaves the context
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_a_comment_that_cannot_be_written_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            VideoWriter(tmp_path / "v.mp4", width=48, height=32, fps=8, comment="x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file(tmp_path):
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="decode failed"), VideoWriter(target, width=48, height=32, fps=8) as writer:
        writer.write(gradient(3))
        raise RuntimeError("decode failed")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_appears_before_the_end(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", width=48, height=32, fps=8) as writer:
        writer.write(gradient(3))
        assert not (tmp_path / "v.mp4").exists()
        writer.finish()
        assert (tmp_path / "v.mp4").exists()


def test_a_slow_encoder_holds_the_writer_back(tmp_path, program):
    """Beside the chunk that is being fed no more than a few wait in memory."""
    place = program('while [ ! -e "${0%/*}/go" ]; do sleep 0.02; done; exec "$real" "$@"')
    chunk = gradient(2, 256, 256)  # more than a pipe holds
    with VideoWriter(tmp_path / "v.mp4", width=256, height=256, fps=8) as writer:

        def write_all():
            for _ in range(12):
                writer.write(chunk)

        thread = threading.Thread(target=write_all)
        thread.start()
        while writer.num_frames < 2 * (QUEUED_CHUNKS + 1):
            assert thread.is_alive()
            time.sleep(0.01)
        time.sleep(0.2)
        assert writer.num_frames == 2 * (QUEUED_CHUNKS + 1)
        (place / "go").touch()
        thread.join()
        writer.finish()
    assert writer.num_frames == 24
    assert "00:00:03.00" in said_of(tmp_path / "v.mp4")


def test_dead_encoder_is_an_error(tmp_path, program):
    program("head -c 1000 > /dev/null; kill -9 $$")
    with pytest.raises(VideoError, match=r"ffmpeg failed to write .*v\.mp4: exit status -9"):
        write(tmp_path / "v.mp4", gradient(40, 256, 256))  # more than a pipe holds
    assert list(tmp_path.iterdir()) == []


def test_encoder_that_fails_at_the_end_is_an_error(tmp_path, program):
    program(FAILS_AT_THE_END)
    (tmp_path / "v.mp4").write_bytes(b"old")
    with pytest.raises(VideoError, match=r"ffmpeg failed to write .*v\.mp4: No space left on device$"):
        write(tmp_path / "v.mp4", gradient(3))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("v.mp4", b"old")]


def test_a_talkative_encoder_is_listened_to(tmp_path, program):
    """All that it says is read, or it would wait for ever; the beginning is told."""
    program("yes beginning | head -c 3000000 >&2; cat > /dev/null; exit 1")
    with pytest.raises(VideoError, match="beginning\nbeginning") as caught:
        write(tmp_path / "v.mp4", gradient(3))
    assert MESSAGE_BYTES < len(str(caught.value)) < MESSAGE_BYTES + 1000


def test_encoder_that_cannot_write_is_an_error(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    writer = VideoWriter(folder / "v.mp4", width=48, height=32, fps=8)
    with pytest.raises(VideoError, match="ffmpeg failed to write"), writer:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        writer.write(gradient(30))
        writer.finish()


@pytest.mark.parametrize("codec", CODECS)
def test_encoders_that_are_there(codec):
    assert check_encoder(codec) is None


def test_an_encoder_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, "exit 1", listing="echo ' V..... libx264 H.264'"))
    check_encoder("h264")
    with pytest.raises(ValueError, match=r"codec='vp9': .*ffmpeg has no libvpx-vp9; allowed with it: 'h264'"):
        check_encoder("vp9")
