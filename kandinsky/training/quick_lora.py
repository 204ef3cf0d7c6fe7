"""Low-rank weights from a folder of clips in one command, with defaults that are meant to work.

    kandinsky train-lora --data FOLDER --out FILE
    python -m kandinsky.training.quick_lora --data FOLDER --out FILE        the same

FOLDER has videos, and captions as `encode` reads them. Clips are encoded into WORK/data, unless they are there already,
the run is WORK/run; started again it goes on where it was. WORK is `FILE-work` beside the result unless another folder
is named. Everything that these arguments do not say is in `lora_settings`; a file for `lora` says all of it.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch

from kandinsky.checkpoint.dit_file import dit_in
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.config import FLASH_512
from kandinsky.errors import KandinskyError
from kandinsky.loading.devices import devices_of
from kandinsky.training.data import ShardDataset
from kandinsky.training.encode import encode, interrupt_at_the_end
from kandinsky.training.lora import train_lora
from kandinsky.training.lora_initial import read_initial
from kandinsky.training.lora_memory import lora_needs
from kandinsky.training.lora_settings import CHOICES, LoraSettings
from kandinsky.training.settings import AdamSettings
from kandinsky.user_files.paths import path_argument
from kandinsky.video_shape import VideoShape

RATE, HEADS_RATE = 1e-4, 2e-4
KEEP: Mapping[str, float] = MappingProxyType({"ladd": 10.0, "velocity": 1.0})
"""Weight of what is to stay; an adversary pulls harder than a mean square."""


def parser() -> argparse.ArgumentParser:
    """Of the command."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=path_argument, required=True, help="folder of videos with captions")
    made.add_argument("--out", type=path_argument, required=True, help="a .safetensors file, or PEFT's folder")
    made.add_argument("--weights", type=path_argument, default=Path("weights"), help="folder of the model set")
    made.add_argument("--work", type=path_argument, help="folder for encoded clips and checkpoints")
    made.add_argument("--objective", choices=CHOICES["objective"], default="ladd")
    made.add_argument("--initial", type=path_argument, help="low-rank weights to begin with, a file or PEFT's folder")
    made.add_argument("--base-precision", choices=CHOICES["base_precision"], default="bf16")
    made.add_argument("--optimiser-bits", type=int, choices=(32, 8), default=32)
    made.add_argument("--keep", type=path_argument, help="text file of captions whose videos are to stay as they are")
    made.add_argument("--keep-weight", type=float, help="of a change there (default: 10 for ladd, 1 for velocity)")
    made.add_argument("--steps", type=int, default=1000)
    made.add_argument("--batch-size", type=int, default=2)
    made.add_argument("--rank", type=int, default=32)
    made.add_argument("--heads-every", type=int, default=1, help="more takes less memory")
    made.add_argument("--seconds", type=int, nargs="+", default=[5], help="allowed lengths of clips")
    made.add_argument("--sample-every", type=int, default=0, help="steps between samples; 0 is never")
    made.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--plan", action="store_true", help="say what training takes on a GPU, and do nothing else")
    return made


def settings_of(given: argparse.Namespace) -> LoraSettings:
    """Settings of the run that the arguments mean.

    Raises:
        ValueError: one of them is not what it may be.
    """
    work = given.work or given.out.with_name(f"{given.out.stem}-work")
    adversarial = given.objective == "ladd"
    on_gpu = torch.cuda.is_available()
    return LoraSettings(
        weights=given.weights,
        data=work / "data",
        output=work / "run",
        base=dit_in(given.weights, read_model_set(given.weights) or FLASH_512),
        objective=given.objective,
        initial=given.initial,
        rank=given.rank,
        steps=given.steps,
        batch_size=given.batch_size,
        micro_batch=1,
        optimiser=AdamSettings(learning_rate=RATE, beta1=0.0 if adversarial else 0.9),
        heads=AdamSettings(learning_rate=HEADS_RATE, beta1=0.0, warmup=20),
        heads_every=given.heads_every,
        base_precision=given.base_precision,
        optimiser_bits=given.optimiser_bits,
        keep=given.keep,
        keep_weight=KEEP[given.objective] if given.keep_weight is None else given.keep_weight,
        ema_decay=0.99,
        mixed_precision="bf16" if on_gpu else "no",
        checkpointing=on_gpu,
        log_every=min(10, given.steps),
        sample_every=given.sample_every,
        save_every=given.save_every,
        seed=given.seed,
    )


def check_clips(settings: LoraSettings, skipped: int) -> None:
    """Refuse data that no batch can be made of, before the model is loaded.

    Raises:
        ValueError: says how many clips there are of one shape, and how many are needed.
    """
    there = any(settings.data.glob("shard-*.safetensors"))
    shapes = [item.shape for item in ShardDataset(settings.data).items] if there else []
    most = max(map(shapes.count, shapes), default=0)
    if most < settings.batch_size:
        why = f"; {skipped} were skipped, see {settings.data / 'report.jsonl'}" if skipped else ""
        raise ValueError(
            f"batch_size={settings.batch_size}: there are {most} clips of one size and length at most{why}; allowed is "
            f"{settings.smallest_batch} to that many"
        )


def planned(given: argparse.Namespace, settings: LoraSettings) -> str:
    """What the run takes on a GPU, by `lora_memory`, for the largest clips; headers are read, weights are not."""
    model_set = read_model_set(given.weights) or FLASH_512
    seconds = max(given.seconds)
    shapes = [VideoShape.from_request(seconds, *size, model_set=model_set) for size in model_set.sizes]
    config = dit_config(open_checkpoint(settings.base))
    most = max(math.prod(shape.latent_grid) // math.prod(config.patch_size) for shape in shapes)
    on_gpu = replace(settings, mixed_precision="bf16", checkpointing=True)
    needs = lora_needs(config, on_gpu, tokens=most + model_set.text_tokens)
    return (
        f"clips of {seconds} s: {needs.peak / 1e9:.1f} GB of 10^9 bytes; {needs.base / 1e9:.1f} are the base, "
        f"{needs.trained / 1e9:.1f} what is trained, {needs.working / 1e9:.1f} a step"
    )


def run(given: argparse.Namespace) -> Path | str:
    """Encode, train, write; returns the file, or what is planned."""
    settings = settings_of(given)
    if not settings.base.is_file():
        raise FileNotFoundError(f"weights={str(given.weights)!r}: {settings.base} is not there")
    if settings.initial is not None:
        read_initial(settings, open_checkpoint(settings.base).shapes)  # refused before clips are encoded
    if given.plan:
        return planned(given, settings)
    device = devices_of("cuda" if torch.cuda.is_available() else "cpu")["dit"]
    place = {"weights": given.weights, "device": device}
    _, skipped = encode(given.data, settings.data, **place, seconds=given.seconds)
    check_clips(settings, skipped)
    return train_lora(settings, given.out)


def main(arguments: Sequence[str]) -> None:
    given = parser().parse_args(arguments)
    interrupt_at_the_end()
    try:
        print(run(given))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, KandinskyError) as error:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from error


if __name__ == "__main__":
    main(sys.argv[1:])
