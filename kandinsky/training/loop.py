"""The training loop that all trainers share, over accelerate: one process, DDP under torchrun, or sharded (FSDP2).

An objective is a module with a `student`, its `levels`, `frozen` modules beside it, `draw(shape, generator)` for a
step's randomness, and a forward that returns `Losses`, or samples where it gets no draws. Randomness is drawn for the
whole batch on every process, which then takes its part: the number of processes changes nothing but the order of sums.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast, set_seed
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from kandinsky.errors import TrainingError
from kandinsky.model.dit import TransformerBlock
from kandinsky.model.layers import ModulationLayer
from kandinsky.training import checkpoints
from kandinsky.training.checkpoints import Trained
from kandinsky.training.data import Batch, Batches, ShardDataset
from kandinsky.training.ema import Ema
from kandinsky.training.graphs import GraphedStep
from kandinsky.training.levels import Levels
from kandinsky.training.optimiser import make_optimiser
from kandinsky.training.sample_writer import SampleWriter
from kandinsky.training.settings import RunSettings


class Losses(NamedTuple):
    """What is minimised, and what is logged (detached or not, one number each)."""

    total: Tensor
    logs: dict[str, Tensor]


class Objective(Protocol):
    """See the module's docstring."""

    student: nn.Module
    levels: Levels
    frozen: tuple[nn.Module, ...]

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, ...]: ...


def train(objective: nn.Module, settings: RunSettings, *, progress: bool = True) -> Path:
    """Train to the last step, from the newest checkpoint in `settings.output` if there is one.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: the batch is not a multiple of the processes, one process is to be sharded, several are to be
            recorded, or the checkpoints are of another run.
        TrainingError: the loss is not finite; the last checkpoint stands.
    """
    return Run(objective, settings, progress=progress).train()


def make_accelerator(settings: RunSettings) -> Accelerator:
    """Processes, device, precision and logging of a run."""
    return Accelerator(
        mixed_precision="bf16" if settings.mixed_precision == "bf16" else "no",
        cpu=not torch.cuda.is_available(),
        log_with="tensorboard" if settings.tensorboard else None,
        project_dir=settings.output,
        step_scheduler_with_optimizer=False,
    )


def shard_(objective: nn.Module, settings: RunSettings) -> None:
    """FSDP2 over all processes: blocks and modulations are units, everything else is the root's.

    PyTorch's own call, because accelerate's takes no CPUs, on which the tests run. Inputs are left to autocast: among
    those of a block are RoPE's turns, which stay float32. Gradients are summed in float32.
    """
    half = torch.bfloat16 if settings.mixed_precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for kind in (ModulationLayer, TransformerBlock):
        for module in objective.modules():
            if isinstance(module, kind):
                fully_shard(module, mp_policy=policy)
    fully_shard(objective, mp_policy=policy)


class Run:
    """One training run in one process."""

    def __init__(self, objective: nn.Module, settings: RunSettings, *, progress: bool):
        self.settings = settings
        self._own_group = not dist.is_initialized()
        self.accelerator = accelerator = make_accelerator(settings)
        if settings.batch_size % accelerator.num_processes:
            count = accelerator.num_processes
            raise ValueError(f"batch_size={settings.batch_size}: allowed are multiples of the {count} processes")
        if settings.cuda_graphs and accelerator.num_processes > 1:
            raise ValueError(f"cuda_graphs=True: allowed with one process, there are {accelerator.num_processes}")
        if settings.fsdp and accelerator.num_processes == 1:
            raise ValueError("fsdp=True: there is one process; allowed under torchrun with several")
        self.plain = cast("Objective", objective)
        self.device = accelerator.device
        set_seed(settings.seed)
        torch.set_float32_matmul_precision("high" if settings.mixed_precision == "tf32" else "highest")
        self._place_frozen()
        if settings.fsdp:
            objective.to(self.device)
            shard_(objective, settings)
        self.optimiser = make_optimiser(objective, settings, self.device)
        self.objective = objective if settings.fsdp else accelerator.prepare(objective)
        graphed = settings.cuda_graphs and self.device.type == "cuda"
        self._backward = GraphedStep(self.objective, accelerator.autocast) if graphed else self._eager
        self.ema = Ema(self.plain.student, settings.ema_decay)
        self.trained = Trained(self.objective, self.plain.student, self.optimiser, self.ema)
        data, place = ShardDataset(settings.data), {"device": self.device, "resident": settings.resident_data}
        self.batches = Batches(data, settings.batch_size, seed=settings.seed, **place)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed)
        self.progress = progress and accelerator.is_main_process
        self.step = 0

    def _place_frozen(self) -> None:
        dtype = torch.bfloat16 if self.settings.mixed_precision == "bf16" else torch.float32
        for module in self.plain.frozen:
            module.to(self.device, dtype)

    def train(self) -> Path:
        """See `train`."""
        settings, samples = self.settings, SampleWriter(self.settings, self.batches, self.accelerator)
        due_logs = settings.log_every, settings.save_every  # nothing is saved that was not looked at
        self._resume()
        if settings.tensorboard:
            self.accelerator.init_trackers(settings.output.name)
        saved, logs = self.step, {}
        for logs in self.steps():
            if any(_due(self.step, every) for every in due_logs):
                self.log(logs)
            if _due(self.step, settings.sample_every):
                self._sample(samples)
            if _due(self.step, settings.save_every):
                saved = self._save()
        if saved != self.step:
            if self.step > self._since[0]:
                self.log(logs)
            self._save()
        self.accelerator.wait_for_everyone()
        self.close()
        checkpoint = checkpoints.newest(settings.output)
        assert checkpoint is not None
        return checkpoint

    def close(self) -> None:
        """End the log, and the process group if it is this run's own."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self._own_group and dist.is_initialized():
            dist.destroy_process_group()

    def _sample(self, samples: SampleWriter) -> None:
        """With the averages."""
        with self.ema.swapped():
            samples.write(self.objective, self.step, noise_levels=len(self.plain.levels.steps))
            if isinstance(self.objective, FSDPModule):
                self.objective.reshard()  # a forward that no backward follows leaves the root whole

    def _save(self) -> int:
        is_main = self.accelerator.is_main_process
        checkpoints.save(self.settings.output, self.trained, self._progress(), is_main=is_main)
        return self.step

    def steps(self) -> Iterator[dict[str, Tensor]]:
        """Make the remaining steps; yields what each has to log."""
        total = self.settings.steps
        started = time.perf_counter()
        self._since = (self.step, started)
        with tqdm(total=total, initial=self.step, desc="training", disable=not self.progress) as bar:
            while self.step < total:
                logs = self._one_step(next(self.batches))
                self.step += 1
                bar.update()
                yield logs
                if self._out_of_time(started):
                    return

    def _out_of_time(self, started: float) -> bool:
        """Whether to stop; the main process says so to the others, now and then."""
        limit = self.settings.max_seconds
        if limit is None:
            return False
        late = time.perf_counter() - started > limit
        if self.accelerator.num_processes == 1 or self.step % 10:
            return late and self.accelerator.num_processes == 1
        return bool(broadcast(torch.tensor(late, dtype=torch.uint8, device=self.device)))

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        """Forward, backward and update."""
        rows = self._rows()
        draws = self.plain.draw(tuple(batch.latents.shape), self.generator)
        mine = type(draws)(*(drawn[rows] for drawn in draws))
        logs = self._gradients(batch.latents[rows].float(), batch.text[rows].float(), mine)
        for group, (name, adam) in zip(self.optimiser.param_groups, self.settings.groups().items(), strict=True):
            group["lr"] = adam.rate(self.step, self.settings.steps)
            logs[f"norm/{name}"] = _whole(nn.utils.clip_grad_norm_(group["params"], adam.max_norm))
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update()
        return logs

    def _gradients(self, latents: Tensor, text: Tensor, draws: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """What a batch has to log, its gradients in the parameters; a part of it at a time if that is wanted."""
        count = self.settings.micro_batch or len(latents)
        if count >= len(latents):
            return dict(self._backward(latents, text, draws).logs)
        total: dict[str, Tensor] = {}
        for start in range(0, len(latents), count):
            part = slice(start, start + count)
            share = len(latents[part]) / len(latents)
            few = type(draws)(*(drawn[part] for drawn in draws))
            for name, value in self._eager(latents[part], text[part], few, share=share).logs.items():
                total[name] = total.get(name, 0) + share * value.detach()
        return total

    def _eager(self, latents: Tensor, text: Tensor, draws: tuple[Tensor, ...], *, share: float = 1.0) -> Losses:
        """Losses of a batch, its gradients in the parameters; of a part that is a `share` of the batch, that much."""
        with self.accelerator.autocast():
            losses = self.objective(latents, text, draws)
        self.accelerator.backward(losses.total if share == 1 else share * losses.total)
        return losses

    def _rows(self) -> slice:
        """This process's part of a batch."""
        count = self.settings.batch_size // self.accelerator.num_processes
        return slice(count * self.accelerator.process_index, count * (self.accelerator.process_index + 1))

    def log(self, logs: dict[str, Tensor]) -> None:
        """One line of the log: means over processes, and seconds a step."""
        values = self.accelerator.reduce({key: value.detach().float() for key, value in logs.items()}, "mean")
        numbers = {key: value.item() for key, value in cast("dict[str, Tensor]", values).items()}
        before, since = self._since
        now = time.perf_counter()
        self._since = (self.step, now)
        numbers["seconds"] = (now - since) / (self.step - before)
        if self.device.type == "cuda":
            numbers["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        if self.accelerator.is_main_process:
            self.settings.output.mkdir(parents=True, exist_ok=True)
            with (self.settings.output / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": self.step} | numbers) + "\n")
        self.accelerator.log(numbers, step=self.step)
        if not all(map(math.isfinite, numbers.values())):
            stands = checkpoints.newest(self.settings.output)
            kept = f"{stands} stands" if stands is not None else "no checkpoint was saved before"
            raise TrainingError(f"step {self.step}: loss or gradient is not finite: {numbers}; {kept}")

    def _progress(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "data": self.batches.state_dict(),
            "generator": checkpoints.generator_state(self.generator),
            "settings": asdict(self.settings),
        }

    def _resume(self) -> None:
        checkpoint = checkpoints.newest(self.settings.output)
        if checkpoint is None:
            return
        checkpoints.check_same_run(self.settings)
        progress = checkpoints.load(checkpoint, self.trained)
        self.step = progress["step"]
        self.batches.load_state_dict(progress["data"])
        checkpoints.set_generator_state(self.generator, progress["generator"])


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
