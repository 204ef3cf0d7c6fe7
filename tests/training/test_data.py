"""Shards, and batches of them."""

import json
from itertools import islice

import pytest
import torch
from training_helpers import CPU

from kandinsky.errors import CheckpointError
from kandinsky.training.data import Batches, Encoded, ShardDataset, write_shards


def clip(name, value=0.0, frames=1):
    return Encoded(str(name), f"clip {name}", torch.full((frames, 2, 2, 4), value), torch.full((3, 5), value))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Ten clips of two shapes in three shards; each clip's numbers are its own."""
    folder = tmp_path_factory.mktemp("shards")
    clips = (
        Encoded(str(n), f"clip {n}", torch.full((1 + 2 * (n % 2), 2, 2, 4), float(n)), torch.full((3, 5), float(n)))
        for n in range(10)
    )
    assert write_shards(clips, folder, per_shard=4) == 10
    return folder


def batches_of(shards, *, seed=0, resident=False, size=2):
    return Batches(ShardDataset(shards), size, seed=seed, device=CPU, resident=resident)


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


def test_items(shards):
    dataset = ShardDataset(shards)
    assert len(dataset) == 10
    assert [item.id for item in dataset.items] == [str(number) for number in range(10)]
    assert [(item.shard, item.number) for item in dataset.items[3:6]] == [(0, 3), (1, 0), (1, 1)]
    assert dataset.items[1].shape == (3, 2, 2, 4)
    latents, text = dataset.read([dataset.items[9], dataset.items[2]])
    assert [value.unique().tolist() for value in (*latents, *text)] == [[9], [2], [9], [2]]
    assert latents[0].dtype == text[0].dtype == torch.bfloat16
    assert dataset.load(2).keys() == {"latents.0", "text.0", "latents.1", "text.1"}


@pytest.mark.parametrize("resident", [False, True])
def test_a_batch_has_one_shape_and_its_clips_own_numbers(shards, resident):
    for batch in islice(batches_of(shards, resident=resident), 9):
        numbers = [float(text.removeprefix("clip ")) for text in batch.captions]
        assert batch.latents.flatten(1).mean(1).tolist() == batch.text.flatten(1).mean(1).tolist() == numbers
        assert {1 + 2 * (number % 2) for number in numbers} == {batch.latents.shape[1]}


def test_the_seed_gives_the_order(shards):
    orders = [[batch.captions for batch in islice(batches_of(shards, seed=seed), 8)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    for epoch in (orders[0][:4], orders[0][4:]):  # an epoch has each clip once at most
        assert len({text for batch in epoch for text in batch}) == 8
    assert orders[0][:4] != orders[0][4:]
    assert batches_of(shards).first().captions == orders[0][0]


def test_an_order_is_taken_up_again(shards):
    first, restored = batches_of(shards), batches_of(shards)
    for _ in range(6):
        next(first)
    restored.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for one, other in zip(islice(first, 5), islice(restored, 5), strict=True):
        assert one.captions == other.captions
        assert torch.equal(one.latents, other.latents)
        assert torch.equal(one.text, other.text)


def test_what_is_not_enough_is_refused(shards, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no shard-\*\.safetensors in"):
        ShardDataset(tmp_path)
    with pytest.raises(ValueError, match="batch_size=6: the data has 5 clips of one shape at most"):
        batches_of(shards, size=6)


def test_shards_come_after_the_last(tmp_path):
    """Also where the first ones are gone."""
    clip = Encoded("a", "a clip", torch.zeros(1, 4, 4, 16), torch.zeros(6, 64))
    assert write_shards([clip] * 3, tmp_path, per_shard=1) == 3
    (tmp_path / "shard-00000.safetensors").unlink()
    assert write_shards([clip], tmp_path) == 1
    assert names_in(tmp_path) == [f"shard-0000{number}.safetensors" for number in (1, 2, 3)]


def test_no_clips_are_no_shard(tmp_path):
    assert write_shards([], tmp_path) == 0
    assert names_in(tmp_path) == []


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
