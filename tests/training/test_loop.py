"""The trainers on tiny sizes: where gradients go, that a resumed run is the uninterrupted one, that two processes
equal one."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate.state import AcceleratorState
from helpers import TINY
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.distributed.tensor import DTensor

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.config import DiTConfig
from kandinsky.factory import get_T2V_pipeline
from kandinsky.model.layout import TokenLayout
from kandinsky.training.data import Batches, Encoded, ShardDataset, write_shards
from kandinsky.training.initial import fresh, load_trainable
from kandinsky.training.ladd import Ladd
from kandinsky.training.levels import Levels, LogitNormal
from kandinsky.training.loop import train
from kandinsky.training.losses import discriminator_loss, generator_loss
from kandinsky.training.pretrain import Pretraining
from kandinsky.training.sampling import ddim, sample_from
from kandinsky.training.settings import AdamSettings, LaddSettings, PretrainSettings, build
from kandinsky.training.teacher_data import main as generate
from kandinsky.training.velocity import velocity

SIZES = DiTConfig(
    in_visual_dim=16,
    in_text_dim=64,
    out_visual_dim=16,
    time_dim=16,
    patch_size=(1, 2, 2),
    model_dim=32,
    ff_dim=64,
    num_blocks=2,
    axes_dims=(4, 6, 6),
)
ADAM = AdamSettings(learning_rate=1e-3, warmup=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two shards of ten clips, of two shapes."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for shard in range(2):
        tensors = {}
        for number in range(5):
            frames = 1 + 2 * (number % 2)
            colour = torch.randn(16, generator=generator).bfloat16()
            tensors[f"latents.{number}"] = colour.expand(frames, 4, 4, 16).contiguous()
            tensors[f"text.{number}"] = torch.randn(6, 64, generator=generator).bfloat16()
        items = json.dumps([{"id": f"{shard}-{n}", "caption": f"clip {n}"} for n in range(5)])
        save_file(tensors, folder / f"shard-{shard:05}.safetensors", metadata={"items": items})
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    dit = random_dit(SIZES, torch.Generator().manual_seed(1), dtype=torch.float32)
    save_file(dit.state_dict(), path)
    return path


def settings_of(kind, data, teacher, output, **changes):
    common = {
        "weights": TINY,
        "data": data,
        "output": output,
        "steps": 4,
        "batch_size": 2,
        "optimiser": ADAM,
        "mixed_precision": "no",
        "log_every": 1,
        "save_every": 2,
    }
    if kind is PretrainSettings:
        return PretrainSettings(**(common | {"dit": SIZES} | changes))
    return LaddSettings(**(common | {"teacher": teacher, "heads": ADAM, "r1_weight": 0.1} | changes))


def objective_of(settings):
    levels = Levels(TINY / "scheduler")
    if isinstance(settings, PretrainSettings):
        return Pretraining(fresh(settings.dit, seed=0), levels, settings)
    ladd = Ladd(load_trainable(settings.teacher), load_trainable(settings.teacher), levels, settings)
    for head in ladd.heads:
        # Real scores begin at the hinge's margin, half of them beyond it. Where none is, gradients of what moves real
        # and fake scores alike cancel, and Adam makes steps of their rounding.
        nn.init.ones_(head.score.bias)
    return ladd


def run(kind, data, teacher, output, **changes):
    settings = settings_of(kind, data, teacher, output, **changes)
    return train(objective_of(settings), settings, progress=False)


def test_batch_equals_the_model_with_packed_clips():
    dit = random_dit(SIZES, torch.Generator().manual_seed(0), dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    visual, text = torch.randn(3, 2, 8, 6, 16, generator=generator), torch.randn(3, 7, 64, generator=generator)
    time = torch.tensor([999, 3, 500])
    layout = TokenLayout(dit.layout((2, 8, 6), 7).clips * 3)
    packed = dit(visual.flatten(0, 1), text.flatten(0, 1), time, layout)
    torch.testing.assert_close(velocity(dit, visual, text, time).flatten(0, 1), packed)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_student_and_heads_only(data, teacher, checkpointing, tmp_path):
    settings = settings_of(LaddSettings, data, teacher, tmp_path, checkpointing=checkpointing)
    objective = objective_of(settings)
    batch = next(Batches(ShardDataset(data), 2, seed=0, device=torch.device("cpu")))
    draws = objective.draw(tuple(batch.latents.shape), torch.Generator().manual_seed(0))
    losses = objective(batch.latents.float(), batch.text.float(), draws)
    losses.total.backward()
    for name, value in objective.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0 or name.endswith("bias"), name
    assert all(value.grad is None for value in objective.frozen[0].parameters())
    assert {"student", "heads", "real/0", "fake/1"} <= set(losses.logs)


def test_student_and_heads_do_not_move_each_other(data, teacher, tmp_path):
    """The student's gradient is that of its own loss; the heads' that of the hinge."""
    settings = settings_of(LaddSettings, data, teacher, tmp_path, r1_weight=0.0)
    objective = objective_of(settings)
    batch = next(Batches(ShardDataset(data), 2, seed=0, device=torch.device("cpu")))
    draws = objective.draw(tuple(batch.latents.shape), torch.Generator().manual_seed(0))
    losses = objective(batch.latents.float(), batch.text.float(), draws)
    student, heads = list(objective.student.parameters()), list(objective.heads.parameters())
    assert all(
        g is None for g in torch.autograd.grad(losses.logs["student"], heads, retain_graph=True, allow_unused=True)
    )
    assert all(
        g is None for g in torch.autograd.grad(losses.logs["heads"], student, retain_graph=True, allow_unused=True)
    )


def test_hinge():
    real, fake = [torch.tensor([[2.0, 0.0]])], [torch.tensor([[-3.0, 0.0]])]
    assert discriminator_loss(real, fake) == 0.5 + 0.5
    assert generator_loss(fake) == 1.5


def test_averages_are_those_of_the_run(data, teacher, tmp_path):
    """What is saved as the average is it: (2 w0 + 9 w1) / 11 after the first step."""
    settings = settings_of(LaddSettings, data, teacher, tmp_path, steps=1)
    folder = train(objective_of(settings), settings, progress=False)
    before = load_file(teacher)
    after, averaged = load_file(folder / "model.safetensors"), load_file(folder / "ema.safetensors")
    for name, value in averaged.items():
        expected = (2 * before[name] + 9 * after[f"student.{name}"]) / 11
        torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-5)
    assert any(not torch.equal(value, after[f"student.{name}"]) for name, value in averaged.items())


@pytest.mark.parametrize("kind", [PretrainSettings, LaddSettings])
def test_resumed_equals_uninterrupted(kind, data, teacher, tmp_path):
    whole = run(kind, data, teacher, tmp_path / "whole")
    run(kind, data, teacher, tmp_path / "parts", steps=2)
    parts = run(kind, data, teacher, tmp_path / "parts")
    for name in ("model", "ema", "optimiser"):
        one, other = (load_file(folder / f"{name}.safetensors") for folder in (whole, parts))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    before, after = (json.loads((folder / "progress.json").read_text()) for folder in (whole, parts))
    assert before["generator"] == after["generator"]
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_a_run_out_of_time_is_saved_and_goes_on(data, teacher, tmp_path):
    stopped = run(PretrainSettings, data, teacher, tmp_path, save_every=0, max_seconds=0.0)
    assert stopped.name == "checkpoint-00000001"
    assert run(PretrainSettings, data, teacher, tmp_path, save_every=0).name == "checkpoint-00000004"


@pytest.mark.parametrize("kind", [PretrainSettings, LaddSettings])
def test_samples_are_written(kind, data, teacher, tmp_path):
    run(kind, data, teacher, tmp_path, steps=2, sample_every=2, sample_prompts=2)
    assert (tmp_path / "samples" / "step-00000002.mp4").stat().st_size > 0
    assert len(json.loads((tmp_path / "samples" / "step-00000002.json").read_text())) == 2


@pytest.fixture
def own_precision():
    """Precision is a state of the process, of accelerate and of PyTorch."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("kind", [PretrainSettings, LaddSettings])
def test_graphs_change_nothing(kind, precision, data, teacher, tmp_path):
    """Every batch's shape is recorded and replayed; the weights after some steps are those of steps without graphs."""
    common = {"steps": 12, "save_every": 0, "mixed_precision": precision}
    plain = run(kind, data, teacher, tmp_path / "plain", **common)
    graphed = run(kind, data, teacher, tmp_path / "graphed", cuda_graphs=True, **common)
    expected = load_file(plain / "model.safetensors")
    for name, value in load_file(graphed / "model.safetensors").items():
        torch.testing.assert_close(
            value, expected[name], atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    lines = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("plain", "graphed")]
    for key, value in lines[0].items():
        assert key in ("seconds", "peak_gib") or lines[1][key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_learning_rate_rises_and_falls():
    adam = AdamSettings(learning_rate=8.0, warmup=4, cooldown=2)
    assert [adam.rate(step, 8) for step in range(8)] == [2, 4, 6, 8, 8, 8, 8, 4]
    assert AdamSettings(learning_rate=8.0, warmup=0).rate(7, 8) == 8


def test_one_process_is_not_sharded(data, teacher, tmp_path):
    with pytest.raises(ValueError, match="fsdp=True: there is one process"):
        run(PretrainSettings, data, teacher, tmp_path, fsdp=True)


def test_what_is_not_finite_is_not_saved(data, teacher, tmp_path):
    huge = AdamSettings(learning_rate=1e30, warmup=0)
    with pytest.raises(RuntimeError, match="not finite"):
        run(PretrainSettings, data, teacher, tmp_path, optimiser=huge, log_every=0, save_every=0, steps=3)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_shards_come_after_the_last(tmp_path):
    clip = Encoded("a", "a clip", torch.zeros(1, 4, 4, 16), torch.zeros(6, 64))
    assert write_shards([clip] * 3, tmp_path, per_shard=1) == 3
    (tmp_path / "shard-00000.safetensors").unlink()
    write_shards([clip], tmp_path)
    assert sorted(file.name[6:11] for file in tmp_path.iterdir()) == ["00001", "00002", "00003"]


def test_pipeline_loads_a_checkpoint(data, teacher, tmp_path):
    checkpoint = run(LaddSettings, data, teacher, tmp_path, steps=2)
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, dit_path=checkpoint / "ema.safetensors", progress=False)
    assert pipe.dit.config == SIZES


def rank_of_two(rank, data, teacher, output, rendezvous):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = rendezvous
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    run(LaddSettings, data, teacher, output / "ddp", steps=2, batch_size=4)
    run(LaddSettings, data, teacher, output / "fsdp", steps=1, batch_size=4, fsdp=True)
    settings = settings_of(LaddSettings, data, teacher, output / "fsdp", steps=2, batch_size=4, fsdp=True)
    objective = objective_of(settings)
    train(objective, settings, progress=False)
    assert all(isinstance(value, DTensor) for value in objective.parameters())
    AcceleratorState._reset_state()  # it is one for a process, and this run has another precision
    half = {"mixed_precision": "bf16", "checkpointing": True, "sample_every": 1}
    run(LaddSettings, data, teacher, output / "half", steps=1, batch_size=4, fsdp=True, **half)
    dist.destroy_process_group()


def test_two_processes_equal_one(data, teacher, tmp_path):
    """Replicated, and sharded with a checkpoint in between; sharded in bfloat16, its first losses are near."""
    run(LaddSettings, data, teacher, tmp_path / "one", steps=2, batch_size=4)
    arguments = (data, teacher, tmp_path, str(get_free_port()))
    mp.start_processes(rank_of_two, args=arguments, nprocs=2, start_method="forkserver")
    for name in ("model", "ema"):
        file = f"checkpoint-00000002/{name}.safetensors"
        one, ddp, fsdp = (load_file(tmp_path / kind / file) for kind in ("one", "ddp", "fsdp"))
        assert one.keys() == ddp.keys() == fsdp.keys()
        for key in one:
            torch.testing.assert_close(ddp[key], one[key], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(fsdp[key], one[key], atol=2e-5, rtol=1e-4)
    one, half = (json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0]) for name in ("one", "half"))
    for name in ("heads", "norm/student", "norm/heads"):
        assert abs(half[name] / one[name] - 1) < 0.03, name
    assert (tmp_path / "half" / "samples" / "step-00000001.mp4").exists()


def test_pretraining_learns(data, teacher, tmp_path):
    """On ten clips, each of one colour, the loss falls."""
    run(PretrainSettings, data, teacher, tmp_path, steps=80, save_every=0, optimiser=AdamSettings(learning_rate=1e-2))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_many_steps_of_ddim_go_where_a_perfect_model_points():
    """With the velocity of one known clip both samplers return that clip."""
    target = torch.randn(1, 1, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    for steps, sampler in ((4, "few"), (50, "ddim")):
        levels = Levels(TINY / "scheduler", num_steps=steps)
        with perfect(levels, target) as dit:
            noise = torch.randn(steps, *target.shape, generator=torch.Generator().manual_seed(1))
            made = (
                sample_from(dit, levels, noise, torch.zeros(1, 1, 1))
                if sampler == "few"
                else ddim(dit, levels, noise[0], torch.zeros(1, 1, 1))
            )
        torch.testing.assert_close(made, target, atol=1e-3, rtol=1e-3)


def perfect(levels, target):
    """In the place of the DiT's velocity: what turns any noisy latents into `target`."""
    from unittest import mock

    def known(_dit, noisy, _text, time):
        alpha = levels.alpha(time)
        return (alpha.sqrt() * noisy - target) / (1 - alpha).sqrt()

    return mock.patch("kandinsky.training.sampling.velocity", known)


def test_logit_normal_levels():
    drawn = LogitNormal(mean=0.0, std=1.0).draw(2000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0 and drawn.max() <= 999
    assert abs(drawn.float().mean() - 499.5) < 20
    assert LogitNormal(mean=0.0, std=0.0).draw(3, torch.Generator()).tolist() == [500, 500, 500]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 1}, "unknown 'stepz'"),
        ({"steps": 0}, "steps=0: allowed is 1"),
        ({"batch_size": 1}, "batch_size=1: allowed is 2"),
        ({"steps": "many"}, "steps='many'"),
        ({"optimiser": {}}, "'learning_rate' is missing"),
        ({"r1_weight": -1}, "r1_weight=-1"),
        ({"tensorboard": True}, "tensorboard=True needs a package"),
    ],
)
def test_settings_are_read_strictly(change, message, monkeypatch):
    monkeypatch.setattr("kandinsky.training.settings.find_spec", lambda _: None)
    values = {"weights": "w", "data": "d", "output": "o", "steps": 10, "batch_size": 2, "teacher": "t.pt"}
    values |= {"optimiser": {"learning_rate": "1e-4"}, "heads": {"learning_rate": 1}}
    settings = build(LaddSettings, values, where="file")
    assert settings.optimiser.learning_rate == 1e-4
    assert dataclasses.replace(settings, steps=3).steps == 3
    with pytest.raises(ValueError, match=message):
        build(LaddSettings, values | change, where="file")


def test_another_run_is_not_taken_up(data, teacher, tmp_path):
    run(PretrainSettings, data, teacher, tmp_path, steps=2)
    with pytest.raises(ValueError, match="seed=1"):
        run(PretrainSettings, data, teacher, tmp_path, seed=1)


def test_a_teachers_own_latents_are_data(data, teacher, tmp_path):
    arguments = ["--weights", str(TINY), "--teacher", str(teacher), "--data", str(data), "--device", "cpu"]
    generate([str(tmp_path), *arguments, "--clips", "5", "--steps", "3", "--batch-size", "2"])
    made = ShardDataset(tmp_path)
    assert len(made) == 5
    assert {item.shape for item in made.items} <= {item.shape for item in ShardDataset(data).items}
    assert all(latents.isfinite().all() for latents in made.read(made.items)[0])
