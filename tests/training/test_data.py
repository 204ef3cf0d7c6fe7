"""Shards of clips, and batches of them."""

import json
from itertools import islice

import pytest
import torch

from kandinsky.errors import CheckpointError
from kandinsky.training.data import Batches, Encoded, ShardDataset, write_shards

CPU = torch.device("cpu")


def clip(name, value=0.0, frames=1):
    return Encoded(str(name), f"clip {name}", torch.full((frames, 2, 2, 4), value), torch.full((3, 5), value))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Ten clips of two shapes in three shards."""
    folder = tmp_path_factory.mktemp("shards")
    assert write_shards((clip(n, float(n), 1 + 2 * (n % 2)) for n in range(10)), folder, per_shard=4) == 10
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
    write_shards([clip("new")], tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [f"shard-0000{n}.safetensors" for n in (1, 2, 3)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_clips_before_an_error_are_written(tmp_path, error):
    def clips():
        yield from map(clip, range(3))
        raise error

    with pytest.raises(error):
        write_shards(clips(), tmp_path, per_shard=2)
    assert [item.id for item in ShardDataset(tmp_path).items] == ["0", "1", "2"]
    assert write_shards([clip(3)], tmp_path, per_shard=2) == 1
    assert [item.id for item in ShardDataset(tmp_path).items] == ["0", "1", "2", "3"]


def test_an_interrupted_write_is_made_again(tmp_path, monkeypatch):
    """Ctrl-C while a full shard is being written: its clips still wait, and come with the rest."""
    from kandinsky.training import data

    calls, write = [], data.save_file

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments, **settings)

    monkeypatch.setattr(data, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(map(clip, range(6)), tmp_path, per_shard=2)
    assert [item.id for item in ShardDataset(tmp_path).items] == ["0", "1", "2", "3"]
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_shard_is_named(shards, tmp_path):
    path = tmp_path / "shard-00000.safetensors"
    whole = next(shards.iterdir()).read_bytes()
    for content in (whole[:100], b"", whole.replace(b'"items"', b'"other"'), whole.replace(b"caption", b"comment")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"shard-00000.safetensors is damaged or no shard: .*; removed"):
            ShardDataset(tmp_path)
