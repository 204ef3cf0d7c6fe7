"""Several processes make the video that one makes, each with its part of the weights, or share out the videos."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import relative_error
from rank_processes import CLIP, CPU, EXTENDED, FOUR_HEADS, KNOWN, SHAPE, dit_inputs

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.config import PARALLELISMS, PUBLISHED_DIT
from kandinsky.loading.components import load_dit
from kandinsky.model.dit import DiT
from kandinsky.output.read_clip import read_clip
from kandinsky.output.read_record import read_record
from kandinsky.parallel.apply import KINDS, NONE, SEQUENCE, TENSOR, check_size, parallelism_of
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.tensor import TENSOR_PLAN

MODES = ["tensor", "sequence"]
JOB_OF = {"tensor": "pipelines", "sequence": "pipelines", "none": "jobs"}


@pytest.fixture(scope="module")
def velocity(dit_file):
    """Of one process."""
    with torch.inference_mode():
        return load_dit(open_checkpoint(dit_file), device=CPU, dtype=torch.float32)(*dit_inputs())


@pytest.fixture(scope="module")
def alone(pipe):
    """Latents, frames, an image and a smooth video of one process."""
    latents = pipe.sample(pipe.encode("a cat"), SHAPE, seed=3)
    call = {"time_length": 1, "width": 96, "height": 64, "seed": 3, "output_type": "pt"}
    (image,) = pipe("a cat", time_length=0, width=64, height=64, seed=3)
    return (
        latents,
        torch.cat([chunk.clone() for chunk in pipe.vae.decode(latents)]),
        torch.from_numpy(np.array(image)),
        pipe("a cat", **call, interpolate=3, interpolate_with="network"),
    )


@pytest.fixture(scope="module")
def known(pipe):
    """Latents of one process, of which some pixels are known."""
    return pipe("a cat", **KNOWN)


def frames_of(path):
    return read_clip(path, "video").frames((64, 64), "cover", fps=8, most=99)


@pytest.fixture(scope="module")
def extension(pipe, tmp_path_factory):
    """Frames of an extension that one process made."""
    return frames_of(pipe.extend(CLIP, "a cat", tmp_path_factory.mktemp("alone") / "v.mp4", **EXTENDED).path)


def test_each_name_has_its_value():
    assert {name: parallelism_of(name).name for name in PARALLELISMS} == {name: name for name in KINDS}
    with pytest.raises(ValueError, match="parallelism='pipeline': allowed are 'tensor', 'sequence', 'none'"):
        parallelism_of("pipeline")
    with pytest.raises(ValueError, match="parallelism=None"):
        parallelism_of(None)


def test_who_makes_a_video_together():
    ranks = Ranks(2, 4)
    assert TENSOR.team(ranks) == SEQUENCE.team(ranks) == ranks
    assert NONE.team(ranks) == Ranks(0, 1)


def test_heads_must_be_shared_evenly():
    for size in (1, 2, 3, 48):
        check_size(size, PUBLISHED_DIT)
    message = "5 processes cannot share 48 heads; allowed: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"
    with pytest.raises(ValueError, match=message):
        check_size(5, PUBLISHED_DIT)
    with pytest.raises(ValueError, match=r"4 processes cannot share 4 heads; allowed: 1, 2$"):
        check_size(4, replace(FOUR_HEADS, ff_dim=66))


def test_none_changes_nothing():
    assert NONE.shard(Ranks(1, 2)) is None
    with torch.device("meta"):
        dit = NONE.build(FOUR_HEADS, Ranks(1, 2))
    parts = list(dit.modules())
    NONE.apply_(dit, None)
    assert type(dit) is DiT
    assert all(one is other for one, other in zip(parts, dit.modules(), strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_ranks_have_the_velocity_of_one_process(processes, velocity, mode):
    found = [rank[mode]["velocity"] for rank in processes.of("dit")]
    for ours in found:
        assert relative_error(ours, velocity) < 1e-5
        assert torch.equal(ours, found[0])


def test_messages_of_a_step(processes):
    """Tensor: two sums a block. Sequence: from each rank to each other one before attention and one after it."""
    blocks, others = 2 * FOUR_HEADS.num_blocks, processes.size - 1
    for rank in processes.of("dit"):
        assert rank["tensor"]["counts"] == {"allreduce": 2 * blocks}
        letters = 2 * blocks * others
        assert rank["sequence"]["counts"] == {"send": letters, "recv": letters, "allgather": 1}


def test_each_rank_holds_its_part(processes):
    with torch.device("meta"):
        block = DiT(FOUR_HEADS).blocks[0]
    cut = sum(block.get_submodule(name).weight.numel() for name in TENSOR_PLAN)
    whole = sum(parameter.numel() for parameter in block.parameters())
    for rank in processes.of("dit"):
        assert rank["tensor"]["weights"] <= whole - cut + cut // processes.size
        assert rank["sequence"]["weights"] == whole


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_make_the_video_of_one(two, alone, mode):
    ranks = [rank[mode] for rank in two.of("pipelines")]
    latents, frames, image, smooth = alone
    for rank in ranks:
        assert relative_error(rank["latents"], latents) < 1e-5
        assert torch.equal(rank["latents"], ranks[0]["latents"])
    for name, expected in (("frames", frames), ("image", image)):
        assert ranks[1][name] is None
        assert ranks[0][name].shape == expected.shape
        assert (ranks[0][name].int() - expected.int()).abs().max() <= 1
    assert [rank["has_text_encoder"] for rank in ranks] == [True, False]
    assert ranks[1]["smooth"] is None
    assert torch.equal(ranks[0]["smooth"][::3], ranks[0]["frames"])
    assert (ranks[0]["smooth"].int() - smooth.int()).abs().float().mean() < 0.05


@pytest.mark.parametrize("mode", MODES)
def test_known_pixels_are_shared(two, known, mode):
    """The first rank encodes; what is known is bit for bit its VAE's, on all."""
    first, second = (rank[mode]["known"] for rank in two.of("pipelines"))
    assert second is None
    assert torch.equal(first[[0, 2]], known[[0, 2]])
    assert relative_error(first, known) < 1e-5


@pytest.mark.parametrize("mode", [*MODES, "none"])
def test_extensions_are_those_of_one_process(two, extension, mode):
    made = [rank["extended"] if mode == "none" else rank[mode]["extended"] for rank in two.of(JOB_OF[mode])]
    assert made == [9 + 8, None]
    assert (frames_of(two.folder / f"{mode}.mp4").int() - extension.int()).abs().max() <= 2
    assert [path.suffix for path in two.folder.glob(f"{mode}.mp4*")] == [".mp4"]


def test_each_rank_encodes_for_its_own_videos(two, pipe, known):
    first, second = (latents for rank in two.of("jobs") for latents in rank["known"])
    assert relative_error(first, known) < 1e-6
    assert relative_error(second, pipe("a cat", **{**KNOWN, "seed": KNOWN["seed"] + 1})) < 1e-6


def test_an_interrupt_stops_all(two):
    """The first rank's, also where there is no callback."""
    stopped = "a callback or an interrupt stopped the run after step 2 of 4"
    assert [rank["interrupted"] for rank in two.of("pipelines")] == [[stopped, "Tensor"], [stopped, "NoneType"]]


def test_none_shares_out_the_jobs(two):
    assert [rank["made"] for rank in two.of("jobs")] == [[("v-0.mp4", 3), ("v-2.mp4", 5)], [("v-1.mp4", 4)]]
    assert all((two.folder / f"v-{index}.mp4").stat().st_size > 0 for index in range(3))


@pytest.mark.parametrize(("job", "folder"), [("jobs", "each"), ("pipelines", "together")])
def test_batches_are_made_by_all(two, job, folder):
    """Each rank makes whole videos, or all make each one."""
    assert [rank["batch"] for rank in two.of(job)] == [(2, 0, {}), None]
    report = (two.folder / folder / "report.jsonl").read_text()
    lines = [json.loads(line) for line in report.splitlines() if line]
    assert sorted(line["number"] for line in lines if line["status"] == "done") == [1, 2]


def test_files_of_a_batch_are_those_of_one_process(two, pipe, tmp_path):
    alone = pipe("a dog", tmp_path / "alone.png", time_length=0, width=64, height=64, seed=4)
    (each,) = (two.folder / "each").glob("0002.*")
    (together,) = (two.folder / "together").glob("0002.*")
    assert each.read_bytes() == alone.path.read_bytes()
    assert read_record(together).origin.processes == 2
    assert read_record(each).origin.processes == 1
