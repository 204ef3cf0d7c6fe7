"""What the tests of training share: runs of a very small DiT on ten clips, and what two processes do."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from helpers import TINY
from model_helpers import SMALL_DIT
from torch import nn
from torch.distributed.tensor import DTensor

from kandinsky.training.data import Batch, Batches, ShardDataset
from kandinsky.training.initial import fresh, load_trainable
from kandinsky.training.ladd import Ladd
from kandinsky.training.levels import Levels
from kandinsky.training.loop import train
from kandinsky.training.pretrain import Pretraining
from kandinsky.training.settings import AdamSettings, LaddSettings, PretrainSettings

CPU = torch.device("cpu")
ADAM = AdamSettings(learning_rate=1e-3, warmup=2)
KINDS = [PretrainSettings, LaddSettings]


def run_settings(kind, data: Path, teacher: Path, output: Path, **changes):
    """Settings of a short run."""
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
        return PretrainSettings(**(common | {"dit": SMALL_DIT} | changes))
    return LaddSettings(**(common | {"teacher": teacher, "heads": ADAM, "r1_weight": 0.1} | changes))


def objective_of(settings):
    """What is trained."""
    levels = Levels(TINY / "scheduler")
    if isinstance(settings, PretrainSettings):
        return Pretraining(fresh(settings.dit, seed=0), levels, settings)
    ladd = Ladd(load_trainable(settings.teacher), load_trainable(settings.teacher), levels, settings)
    for head in ladd.heads:
        # Real scores begin at the hinge's margin, half of them beyond it. Where none is, gradients of what moves real
        # and fake scores alike cancel, and Adam makes steps of their rounding.
        nn.init.ones_(head.score.bias)
    return ladd


def run(kind, data: Path, teacher: Path, output: Path, **changes) -> Path:
    """Train; the last checkpoint."""
    settings = run_settings(kind, data, teacher, output, **changes)
    return train(objective_of(settings), settings, progress=False)


def first_batch(data: Path) -> Batch:
    """Two clips."""
    return next(Batches(ShardDataset(data), 2, seed=0, device=CPU))


def losses_of(objective, data: Path):
    """Of one batch, with draws from a seed."""
    batch = first_batch(data)
    draws = objective.draw(tuple(batch.latents.shape), torch.Generator().manual_seed(0))
    return objective(batch.latents.float(), batch.text.float(), draws)


def train_as_rank(data: Path, teacher: Path, output: Path, variables: dict[str, str]) -> None:
    """One of two processes: replicated, sharded with a checkpoint in between, sharded in bfloat16 with samples."""
    os.environ |= {**variables, "OMP_NUM_THREADS": "1"}  # else accelerate takes all cores for each process
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    run(LaddSettings, data, teacher, output / "ddp", steps=2, batch_size=4)
    run(LaddSettings, data, teacher, output / "fsdp", steps=1, batch_size=4, fsdp=True)
    settings = run_settings(LaddSettings, data, teacher, output / "fsdp", steps=2, batch_size=4, fsdp=True)
    objective = objective_of(settings)
    train(objective, settings, progress=False)
    assert all(isinstance(value, DTensor) for value in objective.parameters())
    AcceleratorState._reset_state()  # it is one for a process, and this run has another precision
    half = {"mixed_precision": "bf16", "checkpointing": True, "sample_every": 1}
    run(LaddSettings, data, teacher, output / "half", steps=1, batch_size=4, fsdp=True, **half)
    dist.destroy_process_group()
