"""Trained low-rank weights to a file that others read too: one `.safetensors`, or PEFT's folder.

Written are `lora_A`, `lora_B` and `alpha` of each Linear, in bfloat16 (alpha in float32), under the published names.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kandinsky.atomic import replacing
from kandinsky.checkpoint.lora import CONFIG, WEIGHTS
from kandinsky.checkpoint.names import first_of

ENDING = ".safetensors"
PREFIX = "base_model.model."
"""That PEFT puts before names."""


def check_lora_target(out: Path) -> None:
    """Refuse a place where `write_lora` would take something else's: a folder is replaced with all that is in it.

    Raises:
        ValueError: names what stands there.
    """
    wanted = "a name that ends with .safetensors, or a folder with nothing but PEFT's two files in it"
    if out.is_dir():
        others = sorted({path.name for path in out.iterdir()} - {CONFIG, WEIGHTS})
        if out.suffix == ENDING or others:
            raise ValueError(
                f"out={str(out)!r}: is a folder with {first_of(others, thing='other files')}; allowed is {wanted}"
            )
    elif out.exists() and out.suffix != ENDING:
        raise ValueError(f"out={str(out)!r}: is a file; allowed is {wanted}")


def write_lora(source: Path, out: Path, *, alpha: float) -> Path:
    """Write the low-rank weights of a training checkpoint, whole or not at all; what stands at `out` is replaced.

    `check_lora_target` comes first, before training.

    Args:
        source: `ema.safetensors` of a checkpoint of `lora`.
        out: a name with `.safetensors` at its end, or a folder.
        alpha: that they were trained with.
    """
    state = {name: value.bfloat16().contiguous() for name, value in load_file(source).items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    single = out.suffix == ENDING
    with replacing(out, over_folder=not single) as partial:
        if single:
            alphas = {name.removesuffix(".lora_A.weight"): torch.tensor(alpha) for name in state if ".lora_A." in name}
            save_file(state | {f"{name}.alpha": value for name, value in alphas.items()}, partial, {"format": "pt"})
        else:
            partial.mkdir()
            save_file({PREFIX + name: value for name, value in state.items()}, partial / WEIGHTS, {"format": "pt"})
            (partial / CONFIG).write_text(json.dumps(_config(state, alpha), indent=2) + "\n")
    return out


def _config(state: dict[str, Tensor], alpha: float) -> dict[str, object]:
    """What PEFT needs to read the folder."""
    downs = {name.removesuffix(".lora_A.weight"): len(value) for name, value in state.items() if ".lora_A." in name}
    rank = next(iter(downs.values()))
    whole = int(alpha) if float(alpha).is_integer() else alpha
    return {"peft_type": "LORA", "r": rank, "lora_alpha": whole, "target_modules": sorted(downs), "bias": "none"}
