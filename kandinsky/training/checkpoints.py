"""Training checkpoints: everything that a run needs to go on bit by bit, in safetensors and JSON, no pickle.

`checkpoint-00001000/` holds
    ema.safetensors        the averaged student under the published names: `get_T2V_pipeline(dit_path=...)` loads it
    model.safetensors      everything that is trained, as it stands
    optimiser.safetensors  AdamW's moments
    progress.json          step, position in the data, randomness, and the settings of the run
A folder appears complete or not at all. Sharded parameters are gathered on the first process. Of a run's checkpoints
the newest two are kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from kandinsky.atomic import remove_at_once, replacing
from kandinsky.training.ema import Ema
from kandinsky.training.settings import RunSettings

KEPT = 2
FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=False)


@dataclass(frozen=True)
class Trained:
    """What a checkpoint is of.

    Args:
        objective: the trained module, as it was prepared for the processes.
        student: the DiT in it.
        optimiser: of the objective.
        ema: of the student.
    """

    objective: nn.Module
    student: nn.Module
    optimiser: torch.optim.Optimizer
    ema: Ema


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps."""
    return max(folder.glob("checkpoint-*[0-9]"), default=None)


def check_same_run(settings: RunSettings) -> None:
    """Refuse settings with which the checkpoints in their output cannot be gone on from.

    Raises:
        ValueError: names the first of `settings.kept_by_a_run` that is not what it was.
    """
    checkpoint = newest(settings.output)
    if checkpoint is None:
        return
    before = json.loads((checkpoint / "progress.json").read_text())["settings"]
    for name in settings.kept_by_a_run:
        now, then = json.loads(json.dumps(getattr(settings, name), default=str)), before.get(name)
        if now != then:
            raise ValueError(f"{name}={now!r}: {checkpoint} was made with {then!r}; take another output")


def save(folder: Path, trained: Trained, progress: dict[str, Any], *, is_main: bool) -> Path:
    """Write a checkpoint; every process must call this, the main one writes."""
    model = get_model_state_dict(trained.objective, options=FULL)
    optimiser = get_optimizer_state_dict(trained.objective, trained.optimiser, options=FULL)
    with trained.ema.swapped():
        # Copied before they change places again: on a CPU these are the weights themselves.
        averaged = _apart(get_model_state_dict(trained.student, options=FULL))
    target = folder / f"checkpoint-{progress['step']:08}"
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target, over_folder=True) as partial:
            partial.mkdir()
            save_file(averaged, partial / "ema.safetensors")
            save_file(_apart(model), partial / "model.safetensors")
            tensors, groups = _flat(optimiser)
            save_file(tensors, partial / "optimiser.safetensors", metadata={"groups": json.dumps(groups)})
            record = progress | {"ema_updates": trained.ema.updates}
            (partial / "progress.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        for old in sorted(folder.glob("checkpoint-*[0-9]"))[:-KEPT]:
            remove_at_once(old)
    return target


def load(checkpoint: Path, trained: Trained) -> dict[str, Any]:
    """Put everything back, on every process; returns the progress."""
    progress = json.loads((checkpoint / "progress.json").read_text())
    averaged: dict[str, Any] = load_file(checkpoint / "ema.safetensors")
    model: dict[str, Any] = load_file(checkpoint / "model.safetensors")
    # The averages come in as the student's weights, and change places with them.
    set_model_state_dict(trained.student, averaged, options=SPREAD)
    trained.ema.swap()
    set_model_state_dict(trained.objective, model, options=SPREAD)
    with safe_open(checkpoint / "optimiser.safetensors", "pt") as handle:
        groups = json.loads(handle.metadata()["groups"])
    state = _nested(load_file(checkpoint / "optimiser.safetensors"), groups)
    set_optimizer_state_dict(trained.objective, trained.optimiser, state, options=SPREAD)
    trained.ema.updates = progress["ema_updates"]
    return progress


def generator_state(generator: torch.Generator) -> str:
    """As text."""
    return bytes(generator.get_state().tolist()).hex()


def set_generator_state(generator: torch.Generator, state: str) -> None:
    """From `generator_state`."""
    generator.set_state(torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8))


def _apart(state: dict[str, Any]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory."""
    return {name: value.clone().contiguous() for name, value in state.items()}


def _flat(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as tensors called `parameter/moment`, and its groups."""
    tensors = {f"{name}/{key}": value for name, moments in state["state"].items() for key, value in moments.items()}
    return _apart(tensors), state["param_groups"]


def _nested(tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    moments: dict[str, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        moments.setdefault(name, {})[key] = value
    return {"state": moments, "param_groups": groups}
