"""Some LADD steps of the 5.57 B model with random weights: seconds a step and memory.

    python benchmarks/training.py                                      one GPU, without EMA
    torchrun --nproc-per-node 2 benchmarks/training.py --fsdp          several, sharded (FSDP2)
    python benchmarks/training.py --size tiny --device cpu             to try the benchmark itself

The trainer is the real one; data are random latents of 672x384. The median leaves out the first two steps, which warm
up; each is logged, and waited for with that. The limit: the products and the attention of a step at the rates that this
card has for them alone, measured before. The last line is JSON.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import attention_inputs, gemm_ceiling, measure
from safetensors.torch import save_file
from script import device_in, finish, machine, parser_of

from kandinsky.checkpoint.random_weights import SCHEDULER, SIZES, random_dit
from kandinsky.config import DiTConfig
from kandinsky.loading.devices import default_dtype
from kandinsky.model.attention import TORCH
from kandinsky.training.ladd import Ladd
from kandinsky.training.levels import Levels
from kandinsky.training.loop import Run
from kandinsky.training.settings import AdamSettings, LaddSettings

WARM_UP = 2
LINEARS, ATTENTIONS = 4 + 3 + 1, 2 + 2 + 1 + 2 * 2.5
"""Forward passes of a DiT that a step's arithmetic is worth. The student runs, runs again (checkpointing) and goes back
to weights and inputs, the teacher on fakes the same but for weights, on real latents it only runs. Back through
attention is 2.5 times its forward (arXiv 2307.08691). The heads are left out."""


@dataclass(frozen=True)
class Case:
    """What is trained on.

    Args:
        dit: sizes of student and teacher.
        latent: height and width of the latents.
        seconds: of each clip.
        text_tokens: of each prompt.
        steps: of the run.
    """

    dit: DiTConfig
    latent: tuple[int, int]
    seconds: int
    text_tokens: int
    steps: int

    def grid(self, seconds: int) -> tuple[int, int, int]:
        """Of a clip's latents, `[T, H, W]`."""
        return 2 * seconds + 1, *self.latent

    def tokens(self, seconds: int) -> int:
        """Of a clip, text included."""
        sizes = zip(self.grid(seconds), self.dit.patch_size, strict=True)
        frames, rows, columns = (size // patch for size, patch in sizes)
        return frames * rows * columns + self.text_tokens


CASES = {
    "full": Case(SIZES["full"].dit, (48, 84), seconds=4, text_tokens=224, steps=10),
    "tiny": Case(SIZES["tiny"].dit, (4, 6), seconds=1, text_tokens=16, steps=4),
}


def write_data(folder: Path, case: Case, *, seconds: int, clips: int) -> None:
    """Random latents and text embeddings as one shard."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number in range(clips):
        latents = torch.randn(*case.grid(seconds), case.dit.in_visual_dim, generator=generator)
        text = torch.randn(case.text_tokens, case.dit.in_text_dim, generator=generator)
        tensors |= {f"latents.{number}": latents.bfloat16(), f"text.{number}": text.bfloat16()}
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


def clip_limit(case: Case, seconds: int, device: torch.device) -> float:
    """Seconds that one clip's part of a step cannot be shorter than on this device."""
    config, tokens = case.dit, case.tokens(seconds)
    qkv = attention_inputs(tokens, config.model_dim // config.head_dim, device, head_dim=config.head_dim)
    qkv = qkv.to(default_dtype(device))
    attention = measure(lambda: TORCH.attend(qkv), device=device)
    products = gemm_ceiling(tokens, config.model_dim, config.ff_dim, device)
    return 2 * config.num_blocks * (LINEARS * products.median + ATTENTIONS * attention.median) / 1e3


def train(folder: Path, case: Case, given: argparse.Namespace, device: torch.device) -> dict[str, Any] | None:
    """Figures of a run; None on processes other than the main one."""
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER), encoding="utf-8")
    write_data(folder, case, seconds=given.seconds, clips=given.batch_size)
    settings = settings_for(folder, given)
    make = torch.Generator(device).manual_seed(0)
    teacher = random_dit(case.dit, make)
    student = random_dit(case.dit, make.manual_seed(0)).float().requires_grad_(True)
    run = Run(Ladd(student, teacher, Levels(folder / "scheduler"), settings), settings, progress=False)
    for logs in run.steps():
        run.log(logs)
    figures = None
    if run.accelerator.is_main_process:
        lines = (settings.output / "log.jsonl").read_text(encoding="utf-8").splitlines()
        print("\n".join(lines))
        rows = [json.loads(line) for line in lines]
        steady = sorted(row["seconds"] for row in rows[WARM_UP:])
        step = {"step": steady[len(steady) // 2], "peak_gib": rows[-1].get("peak_gib")}
        figures = {"gpus": run.accelerator.num_processes, "fsdp": given.fsdp, **step}
    run.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, help="3 and more (default: 10, at tiny size 4)")
    parser.add_argument("--batch-size", type=int, default=2, help="over all GPUs")
    parser.add_argument("--seconds", type=int, help="of each clip (default: 4, at tiny size 1)")
    parser.add_argument("--fsdp", action="store_true", help="shard student, heads and optimiser, and keep an EMA")
    given = parser.parse_args(arguments)
    device, case = device_in(given), CASES[given.size]
    given.steps, given.seconds = given.steps or case.steps, given.seconds or case.seconds
    if given.steps <= WARM_UP:
        parser.error(f"--steps {given.steps}: allowed is {WARM_UP + 1} and more, the first {WARM_UP} warm up")
    if device.type == "cpu" and torch.cuda.is_available():
        parser.error("--device cpu: the trainer takes a GPU where there is one; hide it with CUDA_VISIBLE_DEVICES=''")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit = clip_limit(case, given.seconds, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as name:
        figures = train(Path(name), case, given, device)
    if figures is not None:
        about = {**machine(device), "size": given.size, "steps": given.steps}
        clips = {"batch": given.batch_size, "seconds_of_clip": given.seconds}
        finish({**about, **clips, **figures, "limit": limit * given.batch_size / figures["gpus"]}, given)


if __name__ == "__main__":
    main()
