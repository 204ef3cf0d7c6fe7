"""A model set to a folder in the published layout, as `save_pretrained` writes it."""

import json
import shutil
from pathlib import Path
from typing import Any

from kandinsky.atomic import write_text
from kandinsky.checkpoint.locate import converted_file
from kandinsky.checkpoint.safetensors_file import write_module
from kandinsky.config import ModelSet
from kandinsky.model.dit import DiT
from kandinsky.model.precision import EXACT, FAST
from kandinsky.sampler import Schedule
from kandinsky.text.t5 import EMBEDDING, T5Encoder


def save_model_set(
    folder: Path, *, dit: DiT, t5: T5Encoder, tokenizer: Any, autoencoder: Any, schedule: Schedule, model_set: ModelSet
) -> None:
    """Write whole, exact weights into `folder`, made if it is not there (safetensors).

    Args:
        tokenizer: transformers'.
        autoencoder: diffusers' `AutoencoderKLCogVideoX`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / model_set.dit_file).unlink(missing_ok=True)  # what is converted counts as a copy of this one
    converted_file(folder, model_set, FAST).unlink(missing_ok=True)
    write_module(converted_file(folder, model_set, EXACT), dit.state_dict())
    save_t5(t5, folder / "text_encoder")
    autoencoder.save_pretrained(folder / "vae", safe_serialization=True)
    tokenizer.save_pretrained(folder / "tokenizer")
    shutil.copyfile(tokenizer.vocab_file, folder / "tokenizer" / "spiece.model")
    (folder / "scheduler").mkdir(exist_ok=True)
    config = json.dumps(dict(schedule.config), indent=2, sort_keys=True)
    write_text(folder / "scheduler" / "scheduler_config.json", config + "\n")


def save_t5(model: T5Encoder, folder: Path) -> None:
    """Write a model as transformers would, so that it loads there and here."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    state = {name: value for name, value in model.state_dict().items() if name != EMBEDDING[0]}
    write_module(folder / "model.safetensors", state)
    write_text(folder / "config.json", json.dumps(model.config.to_mapping(), indent=2, sort_keys=True) + "\n")
