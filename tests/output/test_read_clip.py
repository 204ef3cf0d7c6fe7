"""Clips in every form that a call takes: files of other rates and turned ones, lists, arrays; and what is refused."""

import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.read_clip import read_clip
from kandinsky.output.video import VideoWriter

SIZE = (64, 48)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """24 frames that grow brighter, at 24 a second, with sound."""
    path = tmp_path_factory.mktemp("clip") / "a 'b'.mp4"
    silent = path.with_name("silent.mp4")
    with VideoWriter(silent, width=64, height=48, fps=24) as writer:
        writer.write(np.repeat(np.arange(0, 240, 10, dtype=np.uint8), 64 * 48 * 3).reshape(24, 48, 64, 3))
        writer.finish()
    sound = ("-f", "lavfi", "-i", "sine=duration=1")
    command = [ffmpeg(), "-v", "error", *sound, "-i", str(silent), "-map", "1", "-map", "0", "-c:v", "copy", str(path)]
    subprocess.run(command, check=True)
    return path


def frames(clip, size=SIZE, most=99, **settings):
    return clip.frames(size, "cover", fps=8, most=most, **settings)


def test_a_file_is_resampled(file):
    clip = read_clip(file, "video")
    assert clip.size == SIZE
    found = frames(clip)
    assert found.shape == (8, 48, 64, 3)
    assert found.dtype == torch.uint8
    assert (found[1:].float().mean((1, 2, 3)).diff() - 30).abs().max() < 6  # every third frame
    assert torch.equal(frames(clip, most=3), found[:3])


def test_a_file_is_fitted(file):
    clip = read_clip(file, "video")
    assert frames(clip, (32, 32)).shape == (8, 32, 32, 3)
    bars = clip.frames((64, 96), "contain", fps=8, most=8)
    assert (bars[-1, :20] < 6).all() and (bars[-1, 40:56] > 150).all()
    assert frames(clip, grey=True).shape == (8, 48, 64)


def test_a_turned_file(file):
    turned = file.with_name("turned.mp4")
    command = [ffmpeg(), "-v", "error", "-display_rotation", "90", "-i", str(file), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    assert read_clip(turned, "video").size == (48, 64)


def test_lists_and_arrays():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    for given in (pixels, torch.from_numpy(pixels), pixels / 255.0, [Image.fromarray(frame) for frame in pixels]):
        clip = read_clip(given, "video")
        assert clip.size == SIZE
        assert (frames(clip).numpy() == pixels).all()


def test_masks():
    white = np.zeros((9, 48, 64), bool)
    white[:, :5] = True
    for given in (white, white[..., None].astype(np.uint8) * 255, [Image.fromarray(frame) for frame in white]):
        assert (frames(read_clip(given, "mask", grey=True), grey=True).numpy() == white * 255).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no.mp4", "video='no.mp4': no such file"),
        (5, "video=5: allowed is a video's path"),
        ([], r"video=\[\]: allowed"),
        (np.zeros((0, 4, 4, 3), np.uint8), "allowed is"),
        (np.zeros((4, 4, 3), np.uint8), "allowed is"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))], r"sizes \(4, 4\) and \(4, 5\)"),
        ([Image.new("RGB", (4, 4)), 3], r"video\[1\]=3"),
    ],
)
def test_what_is_no_clip(given, message):
    with pytest.raises(ValueError, match=message):
        read_clip(given, "video")


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_damaged_files(file, tmp_path, kept):
    whole, path = file.read_bytes(), tmp_path / "v.mp4"
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"v.mp4.*cannot be read"):
        frames(read_clip(path, "video"))


@pytest.mark.parametrize("ending", ["mkv", "webm", "gif"])
def test_files_that_were_cut_off(file, tmp_path, ending):
    """ffmpeg reads what there is, complains, and ends with status 0."""
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    subprocess.run([ffmpeg(), "-v", "error", "-i", str(file), str(whole)], check=True)
    assert len(frames(read_clip(whole, "video"))) == 8
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=rf"cut.{ending}.*cannot be read"):
        frames(read_clip(cut, "video"))


@pytest.mark.parametrize(
    "kind", ["#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
@pytest.mark.parametrize("name", ["v.mp4", "v.m3u8"])
def test_a_list_of_files_opens_none_of_them(file, tmp_path, kind, name):
    other = tmp_path / "other.ts"
    subprocess.run([ffmpeg(), "-v", "error", "-i", str(file), str(other)], check=True)
    for named in (other.name, f"file://{other}"):
        (tmp_path / name).write_text(kind.format(named))
        with pytest.raises(ValueError, match="cannot be read"):
            frames(read_clip(tmp_path / name, "video"))
