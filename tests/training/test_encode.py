"""Videos and rendered clips to shards, shards to batches."""

import json
import math
from itertools import islice

import numpy as np
import pytest
import torch
from helpers import TINY

from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.config import FLASH_512
from kandinsky.loading.components import load_vae
from kandinsky.output.video import VideoWriter
from kandinsky.training import encode as encode_module
from kandinsky.training.data import Batches, Encoded, ShardDataset, write_shards
from kandinsky.training.encode import encode
from kandinsky.training.videos import UnreadableVideoError, nearest_size, read_clip
from kandinsky.training.world.data import encode_clips
from kandinsky.training.world.data import main as make_world_data
from kandinsky.training.world.grammar import caption, split
from kandinsky.training.world.vae import Stage, new_vae, rate, reconstruction_loss, train_vae, trained_vae

CPU = torch.device("cpu")
SIZES = {"resolution": 64, "sizes": [[32, 32], [32, 48]], "max_seconds": 2, "text_tokens": 12, "fps": 8}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The tiny weights with sizes of their own."""
    folder = tmp_path_factory.mktemp("weights")
    for part in TINY.iterdir():
        if part.name != "model_set.json":
            (folder / part.name).symlink_to(part)
    (folder / "model_set.json").write_text(json.dumps(SIZES))
    return folder


@pytest.fixture(scope="module")
def model_set(weights):
    return encode_module.read_model_set(weights)


def write_video(path, *, frames, width, height, fps=8):
    """Gray, brighter in each frame."""
    levels = np.linspace(10, 240, frames).astype(np.uint8)
    with VideoWriter(path, width=width, height=height, fps=fps) as writer:
        writer.write(np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy())
        writer.finish()


@pytest.fixture
def videos(tmp_path):
    """Three videos, a file that is none, a file that is not there, and a line that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "a.mp4", frames=17, width=64, height=64)
    write_video(folder / "-b 1.mp4", frames=14, width=96, height=64)
    write_video(folder / "c.mp4", frames=60, width=64, height=64, fps=24)
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    names = ("a.mp4", "broken.mp4", "-b 1.mp4", "gone.mp4", "c.mp4")
    lines = [json.dumps({"file": name, "caption": f"clip {name[0]}"}) for name in names]
    (folder / "captions.jsonl").write_text("\n".join([*lines, "{", lines[0]]) + "\n")
    return folder


def reported(out):
    return [json.loads(line)["file"] for line in (out / "report.jsonl").read_text().splitlines()]


def test_frames_of_a_file(videos, model_set):
    frames = read_clip(videos / "a.mp4", model_set)
    assert frames.shape == (17, 32, 32, 3)
    assert frames[-1].float().mean() - frames[0].float().mean() > 200
    assert read_clip(videos / "-b 1.mp4", model_set).shape == (9, 32, 48, 3)
    assert read_clip(videos / "c.mp4", model_set).shape == (17, 32, 32, 3)  # 20 frames at 8 a second
    assert read_clip(videos / "a.mp4", model_set, seconds=[1]).shape == (9, 32, 32, 3)
    with pytest.raises(UnreadableVideoError, match="too short: 14 frames at 8 a second, needed are 17"):
        read_clip(videos / "-b 1.mp4", model_set, seconds=[2])
    assert nearest_size((1080, 1920), FLASH_512.sizes) == (384, 672)


def test_an_image_is_one_frame(tmp_path, model_set):
    from PIL import Image

    Image.new("RGB", (44, 40), "red").save(tmp_path / "image.png")
    frames = read_clip(tmp_path / "image.png", model_set)
    assert frames.shape == (1, 32, 32, 3)
    assert frames[0, 0, 0, 0] > 250


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
    expected = load_vae(weights / "vae", device=CPU, dtype=torch.float32).encode(
        read_clip(videos / "a.mp4", encode_module.read_model_set(weights) or FLASH_512)
    )
    assert torch.equal(latents[0], expected.bfloat16())
    assert text[0].shape == (12, 64)

    read = []
    monkeypatch.setattr(encode_module, "read_clip", lambda path, *_, **__: read.append(path.name) or fail())
    assert encode(videos, out, weights=weights, device=CPU) == (0, 4)
    assert sorted(read) == ["broken.mp4", "gone.mp4"]
    assert reported(out) == bad


def fail():
    raise UnreadableVideoError("no")


def test_an_interrupted_run_goes_on(videos, weights, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []

    def interrupt(path, *args, **kwargs):
        calls.append(path.name)
        if path.name == "c.mp4":
            raise KeyboardInterrupt
        return read_clip(path, *args, **kwargs)

    monkeypatch.setattr(encode_module, "read_clip", interrupt)
    with pytest.raises(KeyboardInterrupt):
        encode(videos, out, weights=weights, device=CPU, per_shard=1)
    assert [item.id for item in ShardDataset(out).items] == ["a.mp4", "-b 1.mp4"]
    monkeypatch.undo()
    assert encode(videos, out, weights=weights, device=CPU, per_shard=1)[0] == 1
    assert [item.id for item in ShardDataset(out).items] == ["a.mp4", "-b 1.mp4", "c.mp4"]
    assert not list(out.glob("*.partial"))


def test_other_weights_are_refused(videos, weights, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    encode(videos, out, weights=weights, device=CPU)
    other.mkdir()
    for part in weights.iterdir():
        (other / part.name).symlink_to(part)
    (other / "model_set.json").unlink()
    write_model_set(other, FLASH_512)
    with pytest.raises(ValueError, match=r"out=.* was begun with"):
        encode(videos, out, weights=other, device=CPU)
    with pytest.raises(ValueError, match=r"seconds=\[3\]: allowed are 1 to 2"):
        encode(videos, out, weights=weights, device=CPU, seconds=[3])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Ten clips of two shapes in three shards."""
    folder = tmp_path_factory.mktemp("shards")
    clips = (
        Encoded(str(n), f"clip {n}", torch.full((1 + 2 * (n % 2), 2, 2, 4), float(n)), torch.full((3, 5), float(n)))
        for n in range(10)
    )
    assert write_shards(clips, folder, per_shard=4) == 10
    return folder


def same(one, other):
    assert one.captions == other.captions
    assert torch.equal(one.latents, other.latents)
    assert torch.equal(one.text, other.text)


@pytest.mark.parametrize("resident", [False, True])
def test_batches_have_one_shape_and_an_order(shards, resident):
    def batches(seed=0):
        return Batches(ShardDataset(shards), 2, seed=seed, device=CPU, resident=resident)

    for batch in islice(batches(), 9):
        numbers = [float(text.removeprefix("clip ")) for text in batch.captions]
        assert batch.latents.flatten(1).mean(1).tolist() == batch.text.flatten(1).mean(1).tolist() == numbers
        assert {1 + 2 * (number % 2) for number in numbers} == {batch.latents.shape[1]}
    first, again = batches(), batches()
    orders = [[next(each).captions for _ in range(8)] for each in (first, again, batches(seed=1))]
    assert orders[0] == orders[1] != orders[2]
    assert len({text for batch in orders[0][:4] for text in batch}) == 8  # an epoch has each clip once at most
    restored = batches()
    restored.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(5):
        same(next(first), next(restored))


def test_shards_are_numbered_on(shards, tmp_path):
    for file in sorted(shards.iterdir())[1:]:  # the first one is gone
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_shards([Encoded("new", "new", torch.zeros(1, 2, 2, 4), torch.zeros(3, 5))], tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [f"shard-0000{n}.safetensors" for n in (1, 2, 3)]


def test_clips_in_a_batch_are_encoded_as_alone(weights):
    vae = load_vae(weights / "vae", device=CPU, dtype=torch.float32)
    clips = torch.randint(0, 256, (2, 17, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = encode_clips(vae.autoencoder, clips)
    assert together.shape == (2, 5, 4, 4, 16)
    for clip, latents in zip(clips, together, strict=True):
        torch.testing.assert_close(latents, vae.encode(clip), rtol=1e-4, atol=1e-4)


def test_data_of_the_world(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("kandinsky.training.world.data.BATCH", 2)
    monkeypatch.setattr("kandinsky.training.world.data.LENGTHS", (1, 1, 1, 9))
    arguments = ["--weights", str(weights), "--clips", "5", "--device", "cpu"]
    for name in ("one", "other"):
        make_world_data([str(tmp_path / name), *arguments])
    one, other = (ShardDataset(tmp_path / name) for name in ("one", "other"))
    assert {item.caption for item in one.items} <= {caption(scene) for scene in split()[0]}
    assert [item.id for item in one.items] == list("01234")
    assert one.load(0)["text.0"].shape == (SIZES["text_tokens"], 64)
    for a, b in zip(one.load(0).values(), other.load(0).values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(SystemExit):
        make_world_data([str(tmp_path / "one"), *arguments])


def test_vae_training_takes_its_time(capsys, monkeypatch):
    monkeypatch.setattr("kandinsky.training.world.vae.SAY_EVERY", 0.0)
    trained = new_vae(0)
    train_vae(trained, CPU, seconds=1.5, stages=(Stage(0.5, 1, 32, (1,)), Stage(1.0, 1, 32, (9,))))
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["shape"][2] for line in said] == sorted(line["shape"][2] for line in said)
    assert math.isfinite(said[-1]["loss"])
    before = new_vae(0).state_dict()
    assert all(not torch.equal(value, before[name]) for name, value in trained.state_dict().items() if value.any())
    assert rate(0, 0.0) < rate(1000, 0.5) < rate(1000, 0.0)
    assert rate(1000, 1.0) == 0


def test_object_and_background_weigh_the_same():
    """A missing red object on 16 of 1,024 pixels costs what a background that is as red does."""
    pixels = torch.zeros(1, 3, 1, 32, 32)
    pixels[:, 0, :, 4:8, 4:8] = 1
    missing = reconstruction_loss(torch.zeros_like(pixels), pixels)
    edges = 2 * (2 * 4) / (31 * 32)  # across and down, two sides of four pixels each
    assert missing.item() == pytest.approx((1 + 16 / 1024 + edges) / 3)


def test_vae_training_goes_on(tmp_path):
    vae = new_vae(3)
    vae.save_pretrained(tmp_path)
    again = trained_vae(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.parameters())
