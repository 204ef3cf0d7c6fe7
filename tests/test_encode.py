"""Videos with captions to shards: frames as the model set has them, nothing twice, bad files passed over."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import TINY

from kandinsky.config import FLASH_512
from kandinsky.model_set_file import write_model_set
from kandinsky.training.data import Batches, ShardDataset
from kandinsky.training.encode import encode_folder, main, nearest_size, read_captions, read_video
from kandinsky.video_io import VideoWriter

OWN = dataclasses.replace(FLASH_512, resolution=64, sizes=((64, 64), (64, 96)), max_seconds=1, text_tokens=16)
CPU = torch.device("cpu")


def write_video(path, *, width, height, frames, fps):
    """Left half black, right half white."""
    picture = np.zeros((frames, height, width, 3), np.uint8)
    picture[:, :, width // 2 :] = 255
    with VideoWriter(path, width=width, height=height, fps=fps) as writer:
        writer.write(picture)
        writer.finish()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for part in TINY.iterdir():
        (folder / part.name).symlink_to(part)
    write_model_set(folder, OWN)
    return folder


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "wide.mp4", width=192, height=120, frames=40, fps=16)  # 2.5 s
    write_video(folder / "square.mp4", width=80, height=80, frames=12, fps=8)  # 1.5 s
    write_video(folder / "short.mp4", width=80, height=80, frames=3, fps=8)
    (folder / "broken.mp4").write_bytes(b"no video")
    lines = [{"file": f"{name}.mp4", "caption": f"a {name} one"} for name in ("wide", "broken", "square", "short")]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def test_frames_are_those_of_the_model_set(videos):
    wide = read_video(videos / "wide.mp4", OWN)
    assert wide.shape == (9, 64, 96, 3)
    assert wide[:, :, :40].float().mean() < 10
    assert wide[:, :, 56:].float().mean() > 245
    assert read_video(videos / "square.mp4", OWN).shape == (9, 64, 64, 3)
    assert read_video(videos / "short.mp4", OWN).shape == (1, 64, 64, 3)
    assert nearest_size(1920, 1080, FLASH_512) == (384, 672)


def test_nothing_is_made_twice(videos, weights, tmp_path, capsys):
    out = tmp_path / "data"
    main([str(videos), str(out), "--weights", str(weights), "--device", "cpu"])
    assert "3 videos encoded, 3 in" in capsys.readouterr().out
    assert [json.loads(line)["file"] for line in (out / "report.jsonl").read_text().splitlines()] == ["broken.mp4"]
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("shard-*")}
    write_video(videos / "broken.mp4", width=80, height=80, frames=12, fps=8)
    assert encode_folder(videos, out, weights, device=CPU) == 1
    assert encode_folder(videos, out, weights, device=CPU) == 0
    after = {file.name: file.stat().st_mtime_ns for file in out.glob("shard-*")}
    assert before.items() < after.items()
    dataset = ShardDataset(out)
    assert sorted(item.shape for item in dataset.items) == [(1, 8, 8, 16), (3, 8, 8, 16), (3, 8, 8, 16), (3, 8, 12, 16)]
    batch = next(Batches(dataset, 2, seed=0, device=CPU))
    assert batch.latents.shape == (2, 3, 8, 8, 16)
    assert batch.text.shape == (2, 16, 64)
    assert sorted(batch.captions) == ["a broken one", "a square one"]


def test_batches_go_on_where_they_were(videos, weights, tmp_path):
    encode_folder(videos, tmp_path / "data", weights, device=CPU)
    dataset = ShardDataset(tmp_path / "data")
    one = Batches(dataset, 1, seed=3, device=CPU)
    captions = [next(one).captions for _ in range(5)]
    other = Batches(dataset, 1, seed=3, device=CPU, resident=True)
    assert [next(other).captions for _ in range(2)] == captions[:2]
    third = Batches(dataset, 1, seed=3, device=CPU)
    third.load_state_dict(other.state_dict())
    assert [next(third).captions for _ in range(3)] == captions[2:]
    assert torch.equal(one.first().latents, other.first().latents)
    with pytest.raises(ValueError, match="batch_size=5: the data has 1 clips of one shape"):
        Batches(dataset, 5, seed=0, device=CPU)


@pytest.mark.parametrize("line", ["{", '{"file": "a.mp4"}', '{"file": 1, "caption": "a"}', "[]"])
def test_captions_are_read_strictly(tmp_path, line):
    (tmp_path / "captions.jsonl").write_text('{"file": "a.mp4", "caption": "a"}\n' + line)
    with pytest.raises(ValueError, match="line 2"):
        read_captions(tmp_path)
