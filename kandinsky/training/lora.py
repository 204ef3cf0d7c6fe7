"""Low-rank weights of the published DiT, trained on clips, without losing its four steps.

    python -m kandinsky.training.lora config.yaml

Settings are those of `lora_settings`. The run's last step, or the last that was saved before a loss that is not finite,
becomes OUTPUT/lora.safetensors, which `pipe.load_lora_weights` reads; see `lora_file`.
"""

import os
import sys
from pathlib import Path

import torch

from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.config import FLASH_512
from kandinsky.errors import KandinskyError, TrainingError
from kandinsky.loading.components import load_dit, load_text_encoder
from kandinsky.loading.devices import default_dtype, devices_of
from kandinsky.training import checkpoints
from kandinsky.training.data import ShardDataset
from kandinsky.training.keep import Kept, make_kept, read_kept_captions
from kandinsky.training.levels import Levels
from kandinsky.training.loop import train
from kandinsky.training.lora_file import write_lora
from kandinsky.training.lora_initial import begin_with_, read_initial
from kandinsky.training.lora_model import Adapted, adapted, store_in_float8_
from kandinsky.training.lora_objectives import LoraLadd, LoraVelocity
from kandinsky.training.lora_settings import LoraSettings
from kandinsky.training.settings import settings_or_exit

OBJECTIVES = {"ladd": LoraLadd, "velocity": LoraVelocity}
FILE = "lora.safetensors"


def train_lora(settings: LoraSettings, out: Path | None = None, *, progress: bool = True) -> Path:
    """Train, and write the low-rank weights; returns their file.

    Args:
        out: a `.safetensors` file, or PEFT's folder; None is `lora.safetensors` in the run's output.

    Raises:
        ValueError: a setting does not fit the data or the base.
        FileNotFoundError, CheckpointError: weights or data are missing or damaged.
        TrainingError: a loss is not finite; what was saved before is in the file, if anything was.
    """
    out = settings.output / FILE if out is None else out
    objective = objective_of(settings)
    try:
        checkpoint = train(objective, settings, progress=progress)
    except TrainingError as error:
        stands = checkpoints.newest(settings.output)
        if stands is not None and _is_main():
            error.add_note(f"the last good weights are in {_export(stands, settings, out)}")
        raise
    return _export(checkpoint, settings, out) if _is_main() else out


def objective_of(settings: LoraSettings) -> LoraLadd | LoraVelocity:
    """What is trained, on this process's device; data is looked at before weights are loaded."""
    shapes = sorted({item.shape for item in ShardDataset(settings.data).items})
    captions = None if settings.keep is None else read_kept_captions(settings.keep)
    levels = Levels(place_of(settings.weights, "scheduler"), num_steps=len(settings.student_levels.weights))
    device = devices_of("cuda" if torch.cuda.is_available() else "cpu")["dit"]
    model = load_adapted(settings, device)
    kept = None if captions is None else _kept(settings, captions, model, levels, shapes)
    if settings.base_precision == "float8":
        store_in_float8_(model)
    return OBJECTIVES[settings.objective](model, levels, settings, kept)


def load_adapted(settings: LoraSettings, device: torch.device) -> Adapted:
    """The base on the device, with low-rank weights beside it."""
    checkpoint = open_checkpoint(settings.base)
    dit_config(checkpoint)
    initial = None if settings.initial is None else read_initial(settings, checkpoint.shapes)
    dtype = torch.bfloat16 if settings.mixed_precision == "bf16" else torch.float32
    model = adapted(
        load_dit(checkpoint, device=device, dtype=dtype),
        rank=settings.rank,
        alpha=settings.rank if settings.alpha is None else settings.alpha,
        targets=settings.targets,
        dropout=settings.dropout,
        seed=settings.seed,
    )
    if initial is not None:
        begin_with_(model, initial)
    return model


@torch.no_grad()
def _kept(
    settings: LoraSettings, captions: list[str], model: Adapted, levels: Levels, shapes: list[tuple[int, ...]]
) -> Kept:
    """Clips that the base makes of the captions; T5 is here for as long as it reads them."""
    device = model.base.device
    tokens = (read_model_set(settings.weights) or FLASH_512).text_tokens
    folders = place_of(settings.weights, "text_encoder"), place_of(settings.weights, "tokenizer")
    encoder = load_text_encoder(*folders, device=device, dtype=default_dtype(device), text_tokens=tokens)
    text = torch.stack([encoder(caption).float() for caption in captions])
    del encoder
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision == "bf16"):
        return make_kept(model.base, levels, text, shapes, seed=settings.seed, device=device)


def _export(checkpoint: Path, settings: LoraSettings, out: Path) -> Path:
    alpha = settings.rank if settings.alpha is None else settings.alpha
    return write_lora(checkpoint / "ema.safetensors", out, alpha=alpha)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def main(arguments: list[str]) -> None:
    settings = settings_or_exit(LoraSettings, arguments)
    try:
        print(train_lora(settings))
    except (ValueError, OSError, KandinskyError) as error:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from error


if __name__ == "__main__":
    main(sys.argv[1:])
