"""`kandinsky convert`: the published DiT checkpoint as `.safetensors`, which loads faster, or with float8 blocks.

The copy stands beside the original and says of which file it is one (see `dit_file`); it is then preferred.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky.checkpoint import safetensors_file
from kandinsky.checkpoint.dit_file import converted_file, copy_metadata
from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.replace_set import settle
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError
from kandinsky.model.precision import EXACT, Precision, is_block_linear
from kandinsky.model.sizes import is_quantised


def convert(
    cache_dir: Path,
    *,
    precision: Precision = EXACT,
    device: torch.device,
    progress: bool,
) -> Path:
    """Write the copy for a precision; returns its path.

    Args:
        device: where weights are quantised.

    Raises:
        FileNotFoundError: the published file is not in `cache_dir`.
        CheckpointError: it is not a DiT.
    """
    settle(cache_dir)
    source = cache_dir / FLASH_512.dit_file
    if not source.is_file():
        raise FileNotFoundError(f"{source} not found: `kandinsky generate` downloads it, weights/README.md says more")
    metadata = copy_metadata(source)  # before it is read: if it is replaced meanwhile, the copy is not taken for new
    checkpoint = open_checkpoint(source)
    dit_config(checkpoint)
    if is_quantised(checkpoint.shapes):
        raise CheckpointError(f"{source} is quantised already")
    target = converted_file(cache_dir, FLASH_512, precision)
    layout = _layout(checkpoint, precision)
    with tqdm(total=len(layout), desc=f"writing {target.name}", disable=not progress, leave=False) as bar:
        safetensors_file.write(
            target,
            layout,
            _tensors(checkpoint, precision, device),
            metadata=metadata,
            on_tensor=lambda _name: bar.update(),
        )
    return target


def _layout(checkpoint: Checkpoint, precision: Precision) -> Mapping[str, tuple[torch.dtype, tuple[int, ...]]]:
    layout = {}
    for name, shape in checkpoint.shapes.items():
        if precision.quantise is not None and is_block_linear(name):
            weight, scale = precision.quantise(torch.empty(shape, device="meta"))
            layout[name] = (weight.dtype, shape)
            layout[_scale(name)] = (scale.dtype, tuple(scale.shape))
        else:
            layout[name] = (checkpoint.dtype(name), shape)
    return layout


def _tensors(checkpoint: Checkpoint, precision: Precision, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    cpu = torch.device("cpu")
    for name in checkpoint.shapes:
        if precision.quantise is None or not is_block_linear(name):
            yield name, checkpoint.tensor(name, cpu)
            continue
        weight, scale = precision.quantise(checkpoint.tensor(name, device).to(torch.bfloat16))
        yield name, weight
        yield _scale(name), scale


def _scale(name: str) -> str:
    return name.removesuffix("weight") + "scale"
