"""`kandinsky convert`: the published DiT checkpoint as `.safetensors`, which loads faster, or with float8 blocks.

The copy stands beside the original and says of which file (name and bytes) it is one; `hub.locate` then prefers it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky import safetensors_file
from kandinsky.checkpoint import CheckpointError, dit_config, is_quantised, open_checkpoint
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.hub import converted_file
from kandinsky.model.rows import FLOAT8, quantise_weight
from kandinsky.weight_files import Checkpoint

QUANTISED = ("to_query_key_value", "output_layer", "in_layer", "out_layer")
"""Names of the Linears in a block's attention and feed-forward, all of which are float8 in "fast"."""


def convert(
    cache_dir: Path, *, precision: str = "exact", device: torch.device, model_set: ModelSet = FLASH_512, progress: bool
) -> Path:
    """Write the copy for a precision; returns its path.

    Args:
        device: where weights are quantised.

    Raises:
        FileNotFoundError: the published file is not in `cache_dir`.
        CheckpointError: it is not a DiT.
    """
    source = cache_dir / model_set.dit_file
    if not source.is_file():
        raise FileNotFoundError(f"{source} not found: `kandinsky generate` downloads it, weights/README.md says more")
    checkpoint = open_checkpoint(source)
    dit_config(checkpoint)
    if is_quantised(checkpoint):
        raise CheckpointError(f"{source} is quantised already")
    target = converted_file(cache_dir, model_set, precision)
    layout = _layout(checkpoint, quantise=precision == "fast")
    with tqdm(total=len(layout), desc=f"writing {target.name}", disable=not progress, leave=False) as bar:
        safetensors_file.write(
            target,
            layout,
            _tensors(checkpoint, device, quantise=precision == "fast"),
            metadata={"source": source.name, "source_bytes": str(source.stat().st_size)},
            on_tensor=lambda _name: bar.update(),
        )
    return target


def is_block_linear(name: str) -> bool:
    """Whether a key is the weight of a Linear that "fast" computes in float8."""
    block, _, rest = (
        name.partition(".self_attention.") if ".self_attention." in name else name.partition(".feed_forward.")
    )
    return block.startswith("transformer_blocks.") and rest.removesuffix(".weight") in QUANTISED


def _layout(checkpoint: Checkpoint, *, quantise: bool) -> Mapping[str, tuple[torch.dtype, tuple[int, ...]]]:
    layout = {}
    for name, shape in checkpoint.shapes.items():
        if quantise and is_block_linear(name):
            layout[name] = (FLOAT8, shape)
            layout[_scale(name)] = (torch.float32, (1, shape[0]))
        else:
            layout[name] = (checkpoint.dtype(name), shape)
    return layout


def _tensors(checkpoint: Checkpoint, device: torch.device, *, quantise: bool) -> Iterator[tuple[str, Tensor]]:
    cpu = torch.device("cpu")
    for name in checkpoint.shapes:
        if not (quantise and is_block_linear(name)):
            yield name, checkpoint.tensor(name, cpu)
            continue
        weight, scale = quantise_weight(checkpoint.tensor(name, device).to(torch.bfloat16))
        yield name, weight
        yield _scale(name), scale


def _scale(name: str) -> str:
    return name.removesuffix("weight") + "scale"
