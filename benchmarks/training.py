"""Some LADD steps of the 5.57 B model with random weights: seconds a step and memory.

    python benchmarks/training.py                                      one GPU, without EMA
    torchrun --nproc-per-node 2 benchmarks/training.py --fsdp          several, sharded (FSDP2)

The trainer is the real one; data are random latents of 672x384. Without a GPU it tries itself out on tiny sizes.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from kandinsky.checkpoint.random_weights import SCHEDULER, SIZES, random_dit
from kandinsky.parallel.ranks import local_rank
from kandinsky.training.ladd import Ladd
from kandinsky.training.levels import Levels
from kandinsky.training.loop import Run
from kandinsky.training.settings import AdamSettings, LaddSettings

SIZE = "full" if torch.cuda.is_available() else "tiny"


def write_data(folder: Path, seconds: int, clips: int) -> None:
    """Random latents and text embeddings as one shard."""
    generator = torch.Generator().manual_seed(0)
    grid = (2 * seconds + 1, 48, 84) if SIZE == "full" else (2 * seconds + 1, 4, 6)
    tensors = {}
    for number in range(clips):
        tensors[f"latents.{number}"] = torch.randn(*grid, 16, generator=generator).bfloat16()
        tensors[f"text.{number}"] = torch.randn(224, SIZES[SIZE].dit.in_text_dim, generator=generator).bfloat16()
    items = json.dumps([{"id": str(number), "caption": ""} for number in range(clips)])
    save_file(tensors, folder / "shard-00000.safetensors", metadata={"items": items})


def settings_for(folder: Path, given: argparse.Namespace) -> LaddSettings:
    adam = AdamSettings(learning_rate=1e-6, beta1=0.0)
    return LaddSettings(
        weights=folder,
        data=folder,
        output=folder / "out",
        teacher=folder,
        steps=given.steps,
        batch_size=given.batch_size,
        optimiser=adam,
        heads=adam,
        ema_decay=0.999 if given.fsdp else 0.0,
        checkpointing=True,
        fsdp=given.fsdp,
        log_every=1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=2, help="over all GPUs")
    parser.add_argument("--seconds", type=int, default=4, help="of each clip")
    parser.add_argument("--fsdp", action="store_true", help="shard student, heads and optimiser, and keep an EMA")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
        write_data(folder, given.seconds, given.batch_size)
        device = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
        settings = settings_for(folder, given)
        make = torch.Generator(device).manual_seed(0)
        teacher = random_dit(SIZES[SIZE].dit, make)
        student = random_dit(SIZES[SIZE].dit, make.manual_seed(0)).float().requires_grad_(True)
        run = Run(Ladd(student, teacher, Levels(folder / "scheduler"), settings), settings, progress=False)
        for logs in run.steps():
            run.log(logs)
        if run.accelerator.is_main_process:
            rows = [json.loads(line) for line in (settings.output / "log.jsonl").read_text().splitlines()]
            for row in rows:
                print(json.dumps(row))
            steady = sorted(row["seconds"] for row in rows[2:])
            names = {"steps": given.steps, "batch": given.batch_size, "seconds of clip": given.seconds}
            figures = {"step": steady[len(steady) // 2], "peak_gib": rows[-1].get("peak_gib")}
            print(json.dumps(names | {"gpus": run.accelerator.num_processes, "fsdp": given.fsdp} | figures))
        run.close()


if __name__ == "__main__":
    main()
