"""Low-rank weights of the 5.57 B model with random weights: steps of training, and the change of a set of adapters.

    python benchmarks/lora.py train                                one GPU: seconds a step, peak memory
    python benchmarks/lora.py train --base-precision float8
    python benchmarks/lora.py train --objective velocity
    python benchmarks/lora.py swap                                 seconds to merge, change and take out adapters
    python benchmarks/lora.py --size tiny --device cpu             to try the benchmark itself

`train` makes steps of the real trainer with gradient checkpointing, a clip at a time; `--data` has shards of
`encode`, else latents are random. It also says whether gradients reached each low-rank matrix and nothing else of the
DiT. `swap` merges into a DiT that was loaded from a file as a pipeline's is. `--file` keeps the weights between runs.
The limit is that of `benchmarks/training.py`, without gradients of weights. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measure import attention_inputs, gemm_ceiling, measure
from script import device_in, finish, machine, parser_of
from training import CASES, WARM_UP, Case, write_data

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import Lora, LowRank, linears_of
from kandinsky.checkpoint.random_weights import SCHEDULER, random_dit
from kandinsky.checkpoint.safetensors_file import write_module
from kandinsky.loading.adapters import with_adapters
from kandinsky.loading.components import load_dit
from kandinsky.loading.devices import default_dtype
from kandinsky.loading.parts import Adapter, BaseWeights, Parts, modulation_table
from kandinsky.memory.modes import offload_modulation_
from kandinsky.model.attention import TORCH
from kandinsky.model.precision import PRECISIONS
from kandinsky.sampler import Schedule
from kandinsky.training.loop import Run
from kandinsky.training.lora import objective_of
from kandinsky.training.lora_model import lora_layers
from kandinsky.training.lora_settings import CHOICES, TARGETS, LoraSettings
from kandinsky.training.settings import AdamSettings

PASSES = {"ladd": (3 + 3 + 1, 2 * (2 + 2.5) + 1), "velocity": (3, 2 + 2.5)}
"""Forward passes that a step's products and its attention are worth: the student, and for LADD the teacher on fakes,
run, run again and go back to their inputs, the teacher on real latents only runs. Heads and low-rank products are left
out."""


def weights_file(given: argparse.Namespace, case: Case, folder: Path, device: torch.device) -> Path:
    """Random weights of the DiT in a file, drawn if it is not there."""
    file = given.file or folder / "dit.safetensors"
    if not file.exists():
        dit = random_dit(case.dit, torch.Generator(device).manual_seed(0))
        write_module(file, dit.state_dict())
        del dit
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return file


def settings_for(folder: Path, file: Path, given: argparse.Namespace) -> LoraSettings:
    adam = AdamSettings(learning_rate=1e-5, beta1=0.0, warmup=1)
    return LoraSettings(
        weights=folder,
        data=given.data or folder,
        output=folder / "out",
        base=file,
        objective=given.objective,
        rank=given.rank,
        steps=given.steps,
        batch_size=given.batch_size,
        micro_batch=1,
        optimiser=adam,
        heads=adam,
        heads_every=given.heads_every,
        ema_decay=0.999,
        checkpointing=True,
        base_precision=given.base_precision,
        optimiser_bits=given.optimiser_bits,
        log_every=1,
    )


def reached(run: Run, before: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Which low-rank matrices have changed, and whether any other weight of the DiT could."""
    dit = run.plain.keeping.model.dit  # type: ignore[attr-defined]
    own = {f"{name}.{part}" for name, layer in lora_layers(dit).items() for part in ("lora_A", "lora_B")}
    now = dict(run.plain.student.named_parameters())
    changed = [name for name, value in now.items() if not torch.equal(value.detach().cpu(), before[name])]
    others = [name for name, value in dit.named_parameters() if value.requires_grad and "lora_" not in name]
    return {"adapters": len(own), "adapters_changed": len(changed), "other_weights_trained": len(others)}


def train(folder: Path, case: Case, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Figures of a run."""
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER), encoding="utf-8")
    if given.data is None:
        write_data(folder, case, seconds=given.seconds, clips=given.batch_size)
    settings = settings_for(folder, weights_file(given, case, folder, device), given)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = Run(objective_of(settings), settings, progress=False)
    before = {name: value.detach().cpu().clone() for name, value in run.plain.student.named_parameters()}
    rows = []
    for logs in run.steps():
        run.log(logs)
        rows.append(json.loads((settings.output / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    steady = sorted(row["seconds"] for row in rows[WARM_UP:])
    figures = {"step": steady[len(steady) // 2], "peak_gib": rows[-1].get("peak_gib"), **reached(run, before)}
    run.close()
    return figures


def clip_limit(case: Case, given: argparse.Namespace, device: torch.device) -> float:
    """Seconds that one clip's part of a step cannot be shorter than on this device."""
    config, tokens = case.dit, case.tokens(given.seconds)
    qkv = attention_inputs(tokens, config.model_dim // config.head_dim, device, head_dim=config.head_dim)
    qkv = qkv.to(default_dtype(device))
    attention = measure(lambda: TORCH.attend(qkv), device=device)
    products = gemm_ceiling(tokens, config.model_dim, config.ff_dim, device)
    linears, attentions = PASSES[given.objective]
    return 2 * config.num_blocks * (linears * products.median + attentions * attention.median) / 1e3


def random_lora(linears: dict[str, tuple[int, ...]], rank: int, seed: int) -> Adapter:
    """Low-rank weights of the blocks' Linears."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(
            torch.randn(rank, columns, generator=generator).bfloat16() / columns**0.5,
            torch.randn(rows, rank, generator=generator).bfloat16() * 0.01,
            1.0,
        )
        for name, (rows, columns) in linears.items()
        if name.endswith(TARGETS)
    }
    return Adapter(Lora(Path(f"{seed}.safetensors"), str(seed), layers), 1.0)


def swap(folder: Path, case: Case, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds to merge one set of adapters, to take another one, and to take it out; and whether all bits came back."""
    checkpoint = open_checkpoint(weights_file(given, case, folder, device))
    precision = PRECISIONS[given.precision]
    dit = load_dit(checkpoint, device=device, dtype=default_dtype(device))
    schedule = Schedule.from_config(SCHEDULER)
    table = modulation_table(dit, schedule)
    offload_modulation_(dit, checkpoint)
    for block in dit.blocks:
        precision.convert_block_(block)
    base = BaseWeights(checkpoint=checkpoint, shard=None, quantise=precision.quantise, modulation=table)
    parts = Parts(dit=dit, modulation=table, schedule=schedule, text_encoder=None, vae=None, base=base, progress=False)
    before = _sum(dit)
    one, other = (random_lora(linears_of(checkpoint.shapes), given.rank, seed) for seed in (1, 2))
    figures: dict[str, Any] = {"precision": precision.name}
    for name, wanted in (("merge", {"one": one}), ("change", {"other": other}), ("again", {"one": one}), ("out", {})):
        start = time.perf_counter()
        parts = with_adapters(parts, wanted)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        figures[f"{name}_seconds"] = time.perf_counter() - start
    return figures | {"bits_came_back": _sum(dit) == before}


def _sum(dit: torch.nn.Module) -> int:
    """Of the bytes of all weights on their devices, each times a number of its place."""
    total = 0
    for number, value in enumerate([*dit.parameters(), *dit.buffers()], 1):
        total += number * int(value.detach().contiguous().view(torch.uint8).sum(dtype=torch.int64))
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("action", choices=("train", "swap"), nargs="?", default="train")
    parser.add_argument("--steps", type=int, help="3 and more (default: 5, at tiny size 3)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seconds", type=int, help="of each clip (default: 5, at tiny size 1)")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--objective", choices=CHOICES["objective"], default="ladd")
    parser.add_argument("--base-precision", choices=CHOICES["base_precision"], default="bf16")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="exact", help="of the pipeline of `swap`")
    parser.add_argument("--optimiser-bits", type=int, choices=(32, 8), default=32)
    parser.add_argument("--heads-every", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of shards")
    parser.add_argument("--file", type=Path, help="the DiT's random weights; drawn into it if it is not there")
    given = parser.parse_args(arguments)
    device, case = device_in(given), CASES[given.size]
    given.steps = given.steps or (5 if given.size == "full" else 3)
    given.seconds = given.seconds or (5 if given.size == "full" else 1)
    if given.steps <= WARM_UP:
        parser.error(f"--steps {given.steps}: allowed is {WARM_UP + 1} and more, the first {WARM_UP} warm up")
    with tempfile.TemporaryDirectory() as name:
        run = train if given.action == "train" else swap
        figures = run(Path(name), case, given, device)
    about = {**machine(device), "size": given.size, "action": given.action, "rank": given.rank}
    if given.action == "train":
        limit = clip_limit(case, given, device) * given.batch_size
        about |= {"seconds_of_clip": given.seconds, "batch": given.batch_size, "base": given.base_precision}
        about |= {"objective": given.objective, "heads_every": given.heads_every, "limit": limit}
    finish({**about, **figures}, given)


if __name__ == "__main__":
    main()
