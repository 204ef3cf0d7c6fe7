"""A model set to a folder in the published layout, as `save_pretrained` writes it."""

import json
from pathlib import Path
from typing import Any

from kandinsky.atomic import write_text
from kandinsky.checkpoint.dit_file import converted_file
from kandinsky.checkpoint.model_set import check_declarable, write_model_set
from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.checkpoint.safetensors_file import write_module
from kandinsky.config import ModelSet
from kandinsky.model.dit import DiT
from kandinsky.model.precision import EXACT
from kandinsky.sampler import Schedule
from kandinsky.text.t5 import EMBEDDING, T5Encoder


def save_model_set(
    folder: Path, *, dit: DiT, t5: T5Encoder, tokenizer: Any, autoencoder: Any, schedule: Schedule, model_set: ModelSet
) -> None:
    """Write whole, exact weights into `folder`, made if it is not there (safetensors).

    A model set that stands there, perhaps the one that these weights came from, is replaced as a whole when the new one
    is complete.

    Args:
        tokenizer: transformers'.
        autoencoder: diffusers' `AutoencoderKLCogVideoX`.

    Raises:
        ValueError: the model set cannot be declared.
        OSError: it could not be written; what stood there still does.
    """
    check_declarable(model_set)
    spiece = Path(tokenizer.vocab_file).read_bytes()  # which may stand in the folder that is replaced
    with replacing_set(folder) as new:
        write_model_set(new, model_set)
        write_module(converted_file(new, model_set, EXACT), dit.state_dict())
        save_t5(t5, new / "text_encoder")
        save_vae(autoencoder, new / "vae")
        tokenizer.save_pretrained(new / "tokenizer")
        (new / "tokenizer" / "spiece.model").write_bytes(spiece)
        (new / "scheduler").mkdir()
        write_text(new / "scheduler" / "scheduler_config.json", _json(dict(schedule.config)))


def save_t5(model: T5Encoder, folder: Path) -> None:
    """Write a model into a new folder as transformers would, so that it loads there and here."""
    folder.mkdir(parents=True)
    state = {name: value for name, value in model.state_dict().items() if name != EMBEDDING[0]}
    write_module(folder / "model.safetensors", state)
    write_text(folder / "config.json", _json(model.config.to_mapping()))


def save_vae(autoencoder: Any, folder: Path) -> None:
    """Write diffusers' autoencoder into a new folder as its own `save_pretrained` does."""
    folder.mkdir(parents=True)
    autoencoder.save_config(folder)
    write_module(folder / "diffusion_pytorch_model.safetensors", autoencoder.state_dict())


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
