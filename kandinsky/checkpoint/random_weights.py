"""Complete model sets of random weights in the published layout: a tiny one to try everything with, a full-size one
for load and speed measurements.

The tiny set comes from a seed and is the same everywhere (drawn on the CPU); `tests/weights` in the repository is
`make_random_weights("tests/weights", "tiny")`. Videos made with random weights are noise. Weights are well conditioned,
so that error figures mean something: Linears and convolutions 1/sqrt(fan_in), norms near 1, modulation (and with
it the gates) small.
"""

import io
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kandinsky.atomic import write_text
from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.config import FLASH_512, PUBLISHED_DIT, DiTConfig
from kandinsky.model.dit import DiT
from kandinsky.model.layers import ModulationLayer
from kandinsky.model.rope import RoPE3D
from kandinsky.user_files.paths import user_path

_SENTENCES = (
    "A red circle moves slowly to the right across a dark background.",
    "A cat sleeps on a warm windowsill while rain falls outside.",
    "Waves crash against the rocks below an old lighthouse.",
    "Several woolly mammoths walk through deep snow under a bright sky.",
    "The camera follows a small boat down a quiet river at sunset.",
    "A child in a yellow coat jumps over puddles in the street.",
    "Steam rises from a cup of coffee on a wooden table.",
    "Two birds fly above green hills toward the mountains.",
    "A train leaves the station as people wave from the platform.",
    "Close view of a blue flower opening in the morning light.",
)
"""What the tiny tokenizer is trained on."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a whole model set: the DiT's, and keyword arguments of the T5 and VAE configurations."""

    dit: DiTConfig
    t5: dict[str, Any]
    vae: dict[str, Any]


SCHEDULER = {
    "_class_name": "CogVideoXDDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}
"""The published scheduler configuration."""

SIZES = {
    "tiny": ModelSizes(
        dit=DiTConfig(
            in_visual_dim=16,
            in_text_dim=64,
            out_visual_dim=16,
            time_dim=64,
            patch_size=(1, 2, 2),
            model_dim=128,
            ff_dim=512,
            num_blocks=2,
            axes_dims=(16, 24, 24),
        ),
        t5={"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2, "vocab_size": 512},
        vae={"block_out_channels": (16, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 8},
    ),
    "full": ModelSizes(
        dit=PUBLISHED_DIT,
        t5={"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128},
        vae={"block_out_channels": (128, 256, 256, 512), "layers_per_block": 3, "norm_num_groups": 32},
    ),
}


def make_random_weights(
    folder: str | os.PathLike[str], size: str, *, seed: int = 0, device: str | torch.device = "cpu"
) -> Path:
    """Write a complete `cache_dir` of random bfloat16 weights.

    Args:
        folder: created if it is not there; a model set in it is replaced when the new one is complete.
        size: "tiny" (4 MB) or "full" (21 GB).
        seed: same seed and device, same weights.
        device: where they are drawn; a GPU saves minutes for "full".

    Raises:
        ValueError: `size` is neither, or `folder` is no path.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r}: allowed are {', '.join(SIZES)}")
    sizes, target = SIZES[size], user_path(folder, "folder")
    generator = torch.Generator(device).manual_seed(seed)
    with replacing_set(target) as new:
        write_model_set(new, FLASH_512)
        torch.save(random_dit(sizes.dit, generator).state_dict(), new / FLASH_512.dit_file)
        random_text_encoder(sizes.t5, generator).save_pretrained(new / "text_encoder", max_shard_size="5GB")
        random_vae(sizes.vae, generator).save_pretrained(new / "vae", safe_serialization=True)
        _write_tokenizer(new / "tokenizer")
        _write_scheduler(new / "scheduler")
    return target


def random_dit(config: DiTConfig, generator: torch.Generator, *, dtype: torch.dtype = torch.bfloat16) -> DiT:
    """A DiT of random weights on the generator's device."""
    with torch.device("meta"):
        dit = DiT(config)
    dit.to(dtype).to_empty(device=generator.device)
    fill_(dit, generator)
    dit.rope_embeddings = RoPE3D(config.axes_dims).to(generator.device, dtype)
    return dit.requires_grad_(False).eval()


def random_text_encoder(
    sizes: dict[str, Any], generator: torch.Generator, *, dtype: torch.dtype = torch.bfloat16
) -> Any:
    """transformers' T5 encoder of random weights on the generator's device."""
    from transformers import T5Config, T5EncoderModel

    settings: dict[str, Any] = {**sizes, "feed_forward_proj": "gated-gelu", "scale_decoder_outputs": False}
    config = T5Config(**settings, use_cache=False)
    with torch.device("meta"):
        model = T5EncoderModel(config)
    nn.Module.to(model, dtype)
    model.to_empty(device=generator.device)
    model.tie_weights()
    fill_(model, generator)
    return model.requires_grad_(False).eval()


def random_vae(sizes: dict[str, Any], generator: torch.Generator, *, dtype: torch.dtype = torch.bfloat16) -> Any:
    """diffusers' CogVideoX autoencoder of random weights on the generator's device."""
    from diffusers import AutoencoderKLCogVideoX

    count = len(sizes["block_out_channels"])
    settings: dict[str, Any] = {
        **sizes,
        "down_block_types": ("CogVideoXDownBlock3D",) * count,
        "up_block_types": ("CogVideoXUpBlock3D",) * count,
        "latent_channels": 16,
        "scaling_factor": 0.7,
    }
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX(**settings)
    nn.Module.to(vae, dtype)  # diffusers' own `to` warns about modules that this model does not have
    vae.to_empty(device=generator.device)
    fill_(vae, generator)
    return vae.requires_grad_(False).eval()


@torch.no_grad()
def fill_(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter: matrices and filters 1/sqrt(fan_in), scales near 1, biases and modulation small."""
    modulated = {id(p) for part in module.modules() if isinstance(part, ModulationLayer) for p in part.parameters()}
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, device=generator.device)
        if parameter.ndim > 1:
            spread = 0.5 if id(parameter) in embeddings else 1 / math.sqrt(parameter[0].numel())
            noise *= 0.2 * spread if id(parameter) in modulated else spread
        else:
            noise = 0.05 * noise + (0.0 if name.endswith("bias") else 1.0)
        parameter.copy_(noise)


def _write_tokenizer(folder: Path) -> None:
    """A small SentencePiece model with T5's special tokens, and its configuration."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]  # added at run time
        sentence_iterator=iter(_SENTENCES),
        model_writer=model,
        vocab_size=256,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 100}
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 226, "legacy": True, **marks}
    write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def _write_scheduler(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write_text(folder / "scheduler_config.json", json.dumps(SCHEDULER, indent=2, sort_keys=True) + "\n")
