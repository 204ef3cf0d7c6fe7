"""Videos as they are: how long, with which frames, and what is refused."""

from fractions import Fraction

import pytest
import torch
from helpers import ROOT
from video_helpers import run, write_video

from kandinsky.audio.clip import MAX_SECONDS, SEEN_FRAMES, Clip, clip_of, read_frames
from kandinsky.errors import UnreadableVideoError


def made(path, frames, fps):
    return Clip(
        path=path,
        frames=frames,
        duration=Fraction(frames) / fps,
        unit=Fraction(1, 16384),
        codec="h264",
        has_sound=False,
        digest="",
    )


def test_what_a_file_holds(silent, loud):
    clip = clip_of(silent)
    assert (clip.frames, clip.duration, clip.fps, clip.codec, clip.has_sound) == (9, Fraction(9, 8), 8, "h264", False)
    assert clip_of(loud).has_sound
    assert clip_of(loud).digest == clip.digest  # of the picture


def test_the_digest_is_of_the_picture(silent, tmp_path):
    write_video(tmp_path / "other.mp4", frames=10)
    assert clip_of(tmp_path / "other.mp4").digest != clip_of(silent).digest


@pytest.mark.parametrize(
    ("frames", "fps", "seconds"),
    [
        (8, 8, 1),
        (97, 8, 12),
        (95, 8, 11),
        (1000, 8, MAX_SECONDS),
        (30, Fraction(30000, 1001), 1),
        (359, Fraction(30000, 1001), 11),
        (30, Fraction(30_000, 999), 1),  # a file that counts milliseconds loses one
    ],
)
def test_whole_seconds(tmp_path, frames, fps, seconds):
    assert made(tmp_path, frames, fps).seconds == seconds


def test_frames_that_are_seen(tmp_path):
    """As numpy's linspace to whole numbers, which is how the published code chooses."""
    seen = made(tmp_path, 97, 8).seen
    assert seen == list(range(96))
    assert made(tmp_path, 400, 30).seen[:4] == [0, 3, 7, 11]  # of 359.0 / 95 each
    assert made(tmp_path, 400, 30).seen[-1] == 359
    short = made(tmp_path, 9, 8).seen
    assert (len(short), short[0], short[-1]) == (SEEN_FRAMES, 0, 7)


def test_a_still_that_stays(tmp_path):
    """One frame for a minute is seen 96 times."""
    assert set(made(tmp_path, 1, Fraction(1, 60)).seen) == {0}


def test_the_mark_is_of_what_is_seen(tmp_path):
    """The same packets at another rate are another video to the encoder."""
    assert made(tmp_path, 97, 8).mark == made(tmp_path, 97, 8).mark != made(tmp_path, 97, 9).mark


def test_read_frames(silent):
    frames = read_frames(clip_of(silent))
    assert frames.shape == (3, SEEN_FRAMES, 64, 64)
    assert frames.dtype == torch.uint8
    levels = frames.float().mean((0, 2, 3))
    assert (levels.diff() >= 0).all()
    assert abs(levels[0] - 10) < 4
    assert abs(levels[-1] - 211) < 4  # the eighth of nine from 10 to 240


def test_frames_of_a_sideways_video_are_upright(tmp_path):
    write_video(tmp_path / "v.mp4", frames=9, width=64, height=32)
    run("-display_rotation", "90", "-i", str(tmp_path / "v.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    assert read_frames(clip_of(tmp_path / "turned.mp4")).shape[2:] == (64, 32)


def test_too_short(tmp_path):
    write_video(tmp_path / "v.mp4", frames=7)
    with pytest.raises(ValueError, match=r"v\.mp4' is 0\.88 s long: allowed is a video of a second or more"):
        clip_of(tmp_path / "v.mp4")


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        clip_of(tmp_path / "v.mp4")


def test_no_video_stream(tmp_path):
    run("-f", "lavfi", "-i", "sine=frequency=440:duration=2", "-c:a", "aac", str(tmp_path / "v.mp4"))
    with pytest.raises(UnreadableVideoError, match="has no video stream"):
        clip_of(tmp_path / "v.mp4")


@pytest.mark.parametrize("content", [b"", b"no video", b"ffconcat version 1.0\nfile v.mp4\n", b"#EXTM3U\nv.mp4\n"])
def test_no_video(tmp_path, content):
    """A list of other files is none either."""
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(UnreadableVideoError, match="is not a video that can be read"):
        clip_of(tmp_path / "v.mp4")


def test_a_damaged_video(silent, tmp_path):
    whole = (silent).read_bytes()
    clip = clip_of(silent)
    damaged = tmp_path / "v.mp4"
    start = whole.index(b"mdat") + 4
    damaged.write_bytes(whole[:start] + bytes(len(whole) - start - 2000) + whole[-2000:])
    with pytest.raises(UnreadableVideoError):
        read_frames(Clip(**{**vars(clip), "path": damaged}))


def test_a_real_video():
    path = ROOT.parent / "shared" / "videos" / "tokyo.mp4"
    if not path.is_file():
        pytest.skip("no real videos beside the repository")
    clip = clip_of(path)
    assert (clip.frames, clip.fps, clip.seconds, clip.has_sound) == (97, 8, 12, False)
