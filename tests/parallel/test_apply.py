"""Several processes on the CPU (gloo): the same video as one makes, and how much is sent for it."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import SMALL, TINY, fork_server, relative_error

from kandinsky.batch.prompts import make_items
from kandinsky.batch.run import run_batch
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.factory import get_T2V_pipeline
from kandinsky.model.dit import DiT
from kandinsky.model.layout import Clip, TokenLayout
from kandinsky.model.sizes import dit_config
from kandinsky.output.read_record import read_record
from kandinsky.parallel.apply import check_mode, check_size
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.sequence import LocalContext
from kandinsky.parallel.tensor import TENSOR_PLAN, shard_for
from kandinsky.video_shape import VideoShape

CALL = {"time_length": 1, "width": 96, "height": 64, "seed": 3}
DIT = TINY / "kandinsky4_distil_512.pt"
FOUR_HEADS = replace(dit_config(open_checkpoint(DIT)), model_dim=256)


def pipeline(folder, mode="tensor"):
    """The tiny weights with a DiT of four heads."""
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, dit_path=f"{folder}/dit.pt", progress=False, parallelism=mode)
    pipe.model_set = SMALL
    return pipe


def count_messages(counts, monkeypatch):
    """Count what is asked of torch.distributed from here on."""
    for name in ("all_reduce", "all_gather", "batch_isend_irecv", "broadcast"):

        def counted(*args, _name=name, _real=vars(dist)[name], **kwargs):  # noqa: B008
            counts[_name] += 1
            return _real(*args, **kwargs)

        monkeypatch.setattr(dist, name, counted)


def make(mode, rank, folder):
    """One rank's results, and what it asked of torch.distributed for one step."""
    pipe = pipeline(folder, mode)
    shape = VideoShape.from_request(1, 96, 64, model_set=SMALL)
    text = pipe._encode("a cat")
    counts = Counter()
    with pytest.MonkeyPatch.context() as patch:
        count_messages(counts, patch)
        context = pipe.dit.prepare(text, pipe.modulation, pipe.dit.layout(shape.latent_grid, len(text)))
        pipe.dit.step(torch.zeros(*shape.latent_grid, 16), context, 0)
    # What the other ranks ask for does not count.
    frames = pipe("a cat" if rank == 0 else "ignored", **{**CALL, "seed": 3 + rank}, return_frames=True)
    return {
        "latents": pipe.sample_latents(text, shape, seed=3),
        "frames": frames and torch.from_numpy(np.stack(frames)),
        "counts": dict(counts),
        "weights": sum(parameter.numel() for parameter in pipe.dit.blocks[0].parameters()),
        "has_text_encoder": pipe.text_encoder is not None,
    }


def share_jobs(rank, folder, target):
    """Three prompts for the ranks together, each made by one of them."""
    prompts = ["a cat", "a dog", "a cow"] if rank == 0 else "ignored"
    results = pipeline(folder, "none")(prompts, f"{target}/v.mp4", time_length=1, width=64, height=64, seed=3)
    return [(str(result.path), result.seed) for result in results]


def batch(mode, rank, folder, target):
    """Five prompts in one batch; what the other ranks ask for does not count."""
    prompts = ["a cat", "a dog", "a cow", "a fish", "a bird"] if rank == 0 else ["ignored"]
    items = make_items(prompts, {"seed": 3, "time_length": 1, "width": 64, "height": 64}, model_set=SMALL)
    result = run_batch(pipeline(folder, mode), items, f"{target}/batch-{mode}")
    return result and (result.made, result.skipped, result.failed)


def run_rank(rank, size, folder, target):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{target}/rendezvous", rank=rank, world_size=size)
    results = {mode: make(mode, rank, folder) for mode in ("tensor", "sequence")}
    if size == 2:
        results["none"] = share_jobs(rank, folder, target)
        results["batches"] = {mode: batch(mode, rank, folder, target) for mode in ("none", "tensor")}
    torch.save(results, f"{target}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(random_dit(FOUR_HEADS, torch.Generator().manual_seed(5)).state_dict(), folder / "dit.pt")
    return str(folder)


@pytest.fixture(scope="module")
def alone(weights):
    pipe = pipeline(weights)
    shape = VideoShape.from_request(1, 96, 64, model_set=SMALL)
    latents = pipe.sample_latents(pipe._encode("a cat"), shape, seed=3)
    return latents, torch.from_numpy(np.stack(pipe("a cat", **CALL, return_frames=True)))


@pytest.fixture(scope="module", params=[2, 4])
def processes(request, tmp_path_factory, weights):
    """Results of each of 2 or 4 ranks."""
    target, size = tmp_path_factory.mktemp("ranks"), request.param
    ranks = [fork_server().Process(target=run_rank, args=(rank, size, weights, str(target))) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * size
    return target, [torch.load(target / f"{rank}.pt") for rank in range(size)]


@pytest.mark.parametrize("mode", ["tensor", "sequence"])
def test_equals_one_process(processes, alone, mode):
    ranks = [rank[mode] for rank in processes[1]]
    latents, frames = alone
    for rank in ranks:
        assert relative_error(rank["latents"], latents) < 1e-5
        assert torch.equal(rank["latents"], ranks[0]["latents"])
    assert [rank["frames"] is None for rank in ranks] == [False] + [True] * (len(ranks) - 1)
    assert ranks[0]["frames"].shape == frames.shape
    assert (ranks[0]["frames"].int() - frames.int()).abs().max() <= 1
    assert [rank["has_text_encoder"] for rank in ranks] == [True] + [False] * (len(ranks) - 1)


def test_collectives_per_block(processes):
    """Tensor: two all-reduces. Sequence: to the heads' owners (from 3 ranks on in two stages), and back."""
    ranks, blocks = processes[1], 2 * FOUR_HEADS.num_blocks
    exchanges = (2 if len(ranks) == 2 else 3) * blocks
    for rank in ranks:
        assert rank["tensor"]["counts"] == {"all_reduce": 2 * blocks}
        assert rank["sequence"]["counts"] == {"batch_isend_irecv": exchanges, "all_gather": 1}


def test_each_rank_holds_its_shard(processes):
    block, size = DiT(FOUR_HEADS).blocks[0], len(processes[1])
    cut = sum(block.get_submodule(name).weight.numel() for name in TENSOR_PLAN)
    whole = sum(parameter.numel() for parameter in block.parameters())
    for rank in processes[1]:
        assert rank["tensor"]["weights"] <= whole - cut + cut // size
        assert rank["sequence"]["weights"] == whole


def test_none_shares_out_the_jobs(processes):
    target, ranks = processes
    if len(ranks) == 2:
        paths = [str(target / f"v-{index}.mp4") for index in range(3)]
        assert [rank["none"] for rank in ranks] == [[(paths[0], 3), (paths[2], 5)], [(paths[1], 4)]]
        assert all((target / f"v-{index}.mp4").stat().st_size > 0 for index in range(3))
    else:
        assert not any("none" in rank for rank in ranks)


def test_batches(processes, weights):
    """Each rank makes whole videos, or all make each one; the files are the same but for rounding."""
    target, ranks = processes
    if len(ranks) != 2:
        return
    for mode in ("none", "tensor"):
        assert [rank["batches"][mode] for rank in ranks] == [(5, 0, {}), None]
        report = (target / f"batch-{mode}" / "report.jsonl").read_text()
        lines = [json.loads(line) for line in report.splitlines() if line]
        assert sorted(line["number"] for line in lines if line["status"] == "done") == [1, 2, 3, 4, 5]
    alone = pipeline(weights)("a dog", target / "alone.mp4", time_length=1, width=64, height=64, seed=4)
    assert (target / "batch-none" / "0002.mp4").read_bytes() == alone.path.read_bytes()
    assert read_record(target / "batch-tensor" / "0002.mp4").origin.processes == 2


@pytest.mark.parametrize("size", [2, 4])
def test_shards_make_the_whole(size):
    """What the ranks read, put together, is the checkpoint, each head's rows with one rank."""
    checkpoint = open_checkpoint(DIT)
    name = "transformer_blocks.0.0.self_attention.to_query_key_value.weight"
    cpu = torch.device("cpu")
    parts = [
        checkpoint.tensor(name, cpu, shard_for("tensor", Ranks(rank, size))(name, checkpoint.shapes[name]))
        for rank in range(size)
    ]
    whole = torch.cat([part.unflatten(0, (3, -1)) for part in parts], dim=1).flatten(0, 1)
    assert torch.equal(whole, checkpoint.tensor(name, cpu))
    name = "transformer_blocks.0.1.feed_forward.out_layer.weight"
    parts = [
        checkpoint.tensor(name, cpu, shard_for("tensor", Ranks(rank, size))(name, checkpoint.shapes[name]))
        for rank in range(size)
    ]
    assert torch.equal(torch.cat(parts, dim=1), checkpoint.tensor(name, cpu))
    assert shard_for("tensor", Ranks(0, size))("transformer_blocks.0.0.feed_forward.out_layer.bias", (8,)) is None
    assert shard_for("tensor", Ranks(0, size))("time_embeddings.in_layer.weight", (8, 8)) is None


def test_local_rows_cover_every_segment():
    """A stream of two clips cut where no segment ends."""
    dit = DiT(dit_config(open_checkpoint(DIT)))
    layout = TokenLayout((Clip((1, 2, 3), 5), Clip((2, 2, 3), 4)))
    modulation = dit.modulation(torch.tensor([[1, 2]]))
    context = dit.prepare(torch.randn(9, dit.config.in_text_dim), modulation, layout)
    locals_ = [LocalContext.of(context, Ranks(rank, 4)) for rank in range(4)]
    lengths = np.array([local.segments.lengths for local in locals_])
    assert lengths.sum(0).tolist() == [6, 5, 12, 4]
    assert torch.equal(torch.cat([local.segments.index for local in locals_]), context.segments.index)
    assert locals_[0].visual_counts == [6, 2, 7, 3]


def test_wrong_arguments():
    config = dit_config(open_checkpoint(DIT))
    with pytest.raises(ValueError, match="parallelism='pipeline': allowed are 'tensor', 'sequence', 'none'"):
        check_mode("pipeline")
    with pytest.raises(ValueError, match="parallelism='pipeline'"):
        get_T2V_pipeline("cpu", parallelism="pipeline")
    full = replace(config, model_dim=3072, ff_dim=12288)
    with pytest.raises(
        ValueError, match="5 processes cannot share 48 heads; allowed: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"
    ):
        check_size(5, full)
