"""A sound beside an unchanged picture: lengths, names, metadata, and what is refused."""

import shutil
import subprocess
import wave
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from audio_helpers import packets, picture_hash
from helpers import relative_error
from video_helpers import run, write_video

from kandinsky.audio.clip import clip_of
from kandinsky.audio.mux import check_save_path, play_rate, write_wav, write_with_sound
from kandinsky.audio.waveform import SAMPLE_RATE
from kandinsky.errors import VideoError
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.video import read_comment

TONE = torch.sin(torch.arange(95 * 441) * (2 * torch.pi * 440 / SAMPLE_RATE)) * 0.3
"""As long as the sound of one second."""


def samples_of(path):
    """Decoded, float32."""
    command = [ffmpeg(), "-v", "error", "-i", str(path), "-map", "0:a", "-f", "f32le", "-ac", "1", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


def test_lengths(silent, tmp_path):
    """The frames of the first second take as long as the sound; the ninth is silent, and both end together."""
    clip, target = clip_of(silent), tmp_path / "v.mp4"
    write_with_sound(clip, TONE, target, comment=None)
    seconds = len(TONE) / SAMPLE_RATE * 9 / 8
    (_, picture_end), (_, sound_end) = packets(target, "v"), packets(target, "a")
    assert picture_end == pytest.approx(seconds, abs=0.002)
    assert sound_end == pytest.approx(seconds, abs=0.002)
    assert picture_hash(target) == picture_hash(silent)
    assert clip_of(target).frames == 9


def test_a_long_video_goes_on_in_silence(tmp_path):
    """13 s: the first 12 get a sound."""
    write_video(tmp_path / "v.mp4", frames=13 * 8)
    clip = clip_of(tmp_path / "v.mp4")
    assert clip.seconds == 12
    write_with_sound(clip, torch.zeros(1183 * 441), tmp_path / "w.mp4", comment=None)
    (_, picture_end), (_, sound_end) = packets(tmp_path / "w.mp4", "v"), packets(tmp_path / "w.mp4", "a")
    assert picture_end == pytest.approx(13 * 11.83 / 12, abs=0.02)
    assert abs(picture_end - sound_end) < 1 / 8


def test_the_sound(silent, tmp_path):
    """AAC loses a little of it; where the sound has ended there is none."""
    write_with_sound(clip_of(silent), TONE, tmp_path / "v.mp4", comment=None)
    found = torch.from_numpy(samples_of(tmp_path / "v.mp4").copy())
    assert relative_error(found[2000 : len(TONE) - 2000], TONE[2000:-2000]) < 0.05
    assert found[len(TONE) + 3000 :].abs().max() < 0.01


def test_play_rate(silent):
    clip = clip_of(silent)
    assert play_rate(clip, SAMPLE_RATE) == 1
    assert play_rate(clip, SAMPLE_RATE // 2) == 0.5
    long = replace(clip, frames=800, duration=Fraction(100))
    assert play_rate(long, 12 * SAMPLE_RATE) == 1


def test_frames_take_whole_units_of_the_file(silent):
    """Where that is almost the same length."""
    clip = clip_of(silent)
    assert clip.unit == Fraction(1, 16384)
    rate = play_rate(clip, 95 * 441)
    assert rate * 2048 == round(rate * 2048)
    assert rate == pytest.approx(0.95, rel=1e-3)
    assert play_rate(replace(clip, unit=Fraction(1, 1000)), 95 * 441) == pytest.approx(0.95, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".MP4"])
def test_the_comment(silent, tmp_path, ending):
    """It takes the place of the video's, and other tags stay."""
    said = tmp_path / "said.mp4"
    run("-i", str(silent), "-c", "copy", "-metadata", "comment=old", "-metadata", "title=A title", str(said))
    target = tmp_path / f"v{ending}"
    text = '{"a": "=;#\\\\ \u00e9"}' + "x" * 70_000
    write_with_sound(clip_of(said), TONE, target, comment=text)
    assert read_comment(target) == text
    listed = subprocess.run([ffmpeg(), "-i", str(target)], capture_output=True, text=True, check=False).stderr
    assert "A title" in listed
    write_with_sound(clip_of(said), TONE, target, comment=None)
    assert read_comment(target) == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said.mp4", f"v{ending}"]


def test_into_the_video_itself(silent, tmp_path):
    path = tmp_path / "v.mp4"
    shutil.copy(silent, path)
    write_with_sound(clip_of(path), TONE, path, comment=None)
    assert picture_hash(path) == picture_hash(silent)
    assert clip_of(path).has_sound


def test_a_sound_takes_the_place_of_another(loud, tmp_path):
    write_with_sound(clip_of(loud), TONE * 0, tmp_path / "v.mp4", comment=None)
    assert np.abs(samples_of(tmp_path / "v.mp4")).max() == 0


def test_hevc_has_apples_mark(tmp_path):
    write_video(tmp_path / "h264.mp4", frames=9)
    run("-i", str(tmp_path / "h264.mp4"), "-c:v", "libx265", "-x265-params", "log-level=none", str(tmp_path / "v.mkv"))
    write_with_sound(clip_of(tmp_path / "v.mkv"), TONE, tmp_path / "v.mp4", comment=None)
    assert b"hvc1" in (tmp_path / "v.mp4").read_bytes()


def test_a_picture_that_has_no_place_in_the_file(tmp_path):
    """Nothing is lost: the sound is in a file of its own, and a second one beside it."""
    run("-f", "lavfi", "-i", "testsrc=size=64x64:rate=8:duration=2", "-c:v", "huffyuv", str(tmp_path / "v.mkv"))
    clip = clip_of(tmp_path / "v.mkv")
    for name in ("v.wav", "v-2.wav"):
        with pytest.raises(VideoError, match=rf"(?s)ffmpeg failed to write .*; the sound is in .*{name}"):
            write_with_sound(clip, TONE, tmp_path / "v.mp4", comment=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v-2.wav", "v.mkv", "v.wav"]


def test_wav(tmp_path):
    write_wav(tmp_path / "v.wav", torch.tensor([0.0, 1.0, -1.0, 0.5]))
    with wave.open(str(tmp_path / "v.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 32767, -32767, 16384]


def test_such_a_picture_is_refused_before(tmp_path):
    run("-f", "lavfi", "-i", "testsrc=size=64x64:rate=8:duration=2", "-c:v", "huffyuv", str(tmp_path / "v.mkv"))
    clip = clip_of(tmp_path / "v.mkv")
    with pytest.raises(ValueError, match=r"does not hold the video's picture \(huffyuv\); \.mkv holds most"):
        check_save_path(tmp_path / "w.mp4", clip, replace_audio=False)
    check_save_path(tmp_path / "w.mkv", clip, replace_audio=False)
    write_with_sound(clip, TONE, tmp_path / "w.mkv", comment=None)
    assert picture_hash(tmp_path / "w.mkv") == picture_hash(tmp_path / "v.mkv")


@pytest.mark.parametrize("name", ["v.webm", "v.gif", "v.wav", "v"])
def test_endings(silent, tmp_path, name):
    with pytest.raises(ValueError, match=r"save_path=.*: must end with one of \.mp4, \.mov, \.mkv"):
        check_save_path(tmp_path / name, clip_of(silent), replace_audio=False)


def test_a_sound_track_is_kept_unless_asked(loud, silent, tmp_path):
    clip = clip_of(loud)
    with pytest.raises(ValueError, match=r"loud\.mp4' has a sound track, which is kept.*replace_audio=True"):
        check_save_path(tmp_path / "v.mp4", clip, replace_audio=False)
    check_save_path(tmp_path / "v.mp4", clip, replace_audio=True)
    check_save_path(tmp_path / "v.mp4", clip_of(silent), replace_audio=False)


def test_no_folder(silent, tmp_path):
    with pytest.raises(ValueError, match="does not exist; create it first"):
        check_save_path(tmp_path / "none" / "v.mp4", clip_of(silent), replace_audio=False)
