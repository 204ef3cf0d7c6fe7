"""The benchmark of file sizes runs on any video, and its arithmetic is right."""

import json
import math

import numpy as np
import pytest

from kandinsky.output.video import VideoWriter


@pytest.fixture
def encoding(script):
    return script("encoding")


def test_it_is_tried_out_on_a_clip_of_its_own(run):
    found = run("encoding", "--crf", "0", "5", "30", "--preset", "veryfast")
    assert found["videos"]["made up"]["frames"] == 17


def test_a_video_is_written_both_ways(encoding, tmp_path, capsys):
    """Moving noise: ten frames, so that the pipeline's chunks of 9 and then 8 frames are both there."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)
    frames = np.stack([texture[:, t : t + 64] for t in range(10)])
    video = tmp_path / "clip.mp4"
    with VideoWriter(video, width=64, height=64, fps=8) as writer:
        writer.write(frames)
        writer.finish()
    encoding.main([str(video), "--preset", "veryfast", "--crf", "0", "5", "30"])
    lines = capsys.readouterr().out.splitlines()
    (found,) = json.loads(lines[-1])["videos"].values()
    assert found["frames"] == 10
    assert found["crf 0"]["bytes"] > found["crf 5"]["bytes"] > found["crf 30"]["bytes"]
    assert found["crf 0"]["psnr"]["luma"] is None  # lossless
    assert found["ours"]["psnr"]["luma"] > found["crf 30"]["psnr"]["luma"]
    assert set(found["larger"]) == {"same luma", "same all samples", "same crf"}
    assert found["larger"]["same crf"] == found["ours"]["bytes"] / found["crf 5"]["bytes"] - 1


def test_size_at_equal_quality_lies_between_its_neighbours(encoding):
    points = [(400, 50.0), (100, 40.0), (1600, 60.0)]
    assert encoding.size_at(45.0, points) == pytest.approx(200)  # half way in log(size)
    assert encoding.size_at(60.0, points) == pytest.approx(1600)
    with pytest.raises(ValueError, match=r"61\.00 dB, the preset's have 40\.00, 50\.00, 60\.00"):
        encoding.size_at(61.0, points)


def test_psnr(encoding):
    reference = np.full((2, 8), 100, np.uint8)
    assert encoding.psnr(reference + 5, reference) == pytest.approx(20 * math.log10(255 / 5))
    assert encoding.psnr(reference, reference) == math.inf
