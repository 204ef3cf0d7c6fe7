"""What the tests of low-rank training share."""

from pathlib import Path

import torch
from helpers import TINY
from training_helpers import ADAM, CPU

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.loading.components import load_dit
from kandinsky.training.lora_model import Adapted, adapted
from kandinsky.training.lora_settings import TARGETS, LoraSettings


def lora_settings(data: Path, base: Path, output: Path, **changes) -> LoraSettings:
    """Settings of a short run."""
    common = {
        "weights": TINY,
        "data": data,
        "output": output,
        "base": base,
        "steps": 2,
        "rank": 4,
        "batch_size": 2,
        "optimiser": ADAM,
        "heads": ADAM,
        "mixed_precision": "no",
        "log_every": 1,
    }
    return LoraSettings(**(common | changes))


def small_model(base: Path, *, targets: tuple[str, ...] = TARGETS) -> Adapted:
    """Two trees over a very small DiT."""
    dit = load_dit(open_checkpoint(base), device=CPU, dtype=torch.float32)
    return adapted(dit, rank=4, alpha=8, targets=targets, dropout=0.0, seed=0)
