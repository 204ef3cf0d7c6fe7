"""What the tests of low-rank weights share: small ones for the tiny random DiT, in files of each kind."""

import json
from pathlib import Path

import torch
from checkpoint_helpers import dit_state
from safetensors.torch import save_file
from torch import Tensor

ATTENTION = "transformer_blocks.0.1.self_attention.to_query_key_value"
EMBEDDING = "text_embeddings.in_layer"
MODULATION = "transformer_blocks.1.0.visual_modulation.out_layer"
NAMES = (
    ATTENTION,
    EMBEDDING,
    MODULATION,
    "transformer_blocks.1.1.self_attention.output_layer",
    "transformer_blocks.0.0.feed_forward.in_layer",
    "transformer_blocks.1.0.feed_forward.out_layer",
    "out_layer.modulation_out",
)
RANK, ALPHA = 4, 8.0


def linears() -> dict[str, tuple[int, ...]]:
    """Name and shape of each Linear of the tiny DiT."""
    state = dit_state()
    return {
        name.removesuffix(".weight"): tuple(x.shape) for name, x in state.items() if x.ndim == 2 and "args" not in name
    }


def matrices(seed: int = 0, names: tuple[str, ...] = NAMES) -> dict[str, tuple[Tensor, Tensor]]:
    """Down and up for each name, large enough to be seen."""
    generator, shapes = torch.Generator().manual_seed(seed), linears()
    return {
        name: (
            torch.randn(RANK, shapes[name][1], generator=generator) / shapes[name][1] ** 0.5,
            torch.randn(shapes[name][0], RANK, generator=generator) * 0.1,
        )
        for name in names
    }


def peft_folder(folder: Path, seed: int = 0, names: tuple[str, ...] = NAMES, **config: object) -> Path:
    """As PEFT saves them."""
    folder.mkdir()
    tensors = {}
    for name, (down, up) in matrices(seed, names).items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = down
        tensors[f"base_model.model.{name}.lora_B.weight"] = up
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(names), **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def plain_file(file: Path, seed: int = 0, names: tuple[str, ...] = NAMES) -> Path:
    """One file with `lora_A`, `lora_B` and alpha."""
    tensors = {}
    for name, (down, up) in matrices(seed, names).items():
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}
    save_file(tensors, file)
    return file


def kohya_file(file: Path, seed: int = 0) -> Path:
    """With underscores, as kohya's scripts write it."""
    tensors = {}
    for name, (down, up) in matrices(seed).items():
        flat = "lora_unet_" + name.replace(".", "_")
        tensors |= {
            f"{flat}.lora_down.weight": down,
            f"{flat}.lora_up.weight": up,
            f"{flat}.alpha": torch.tensor(ALPHA),
        }
    save_file(tensors, file)
    return file
