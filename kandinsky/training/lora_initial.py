"""Low-rank training that goes on from other low-rank weights, as after plain v-prediction with an adversary."""

from collections.abc import Mapping

import torch

from kandinsky.checkpoint.lora import Lora, linears_of, read_lora
from kandinsky.checkpoint.names import first_of
from kandinsky.training.lora_model import NAME, Adapted, lora_layers, targeted
from kandinsky.training.lora_settings import LoraSettings


def read_initial(settings: LoraSettings, shapes: Mapping[str, tuple[int, ...]]) -> Lora:
    """The low-rank weights to begin with, of `settings.initial`.

    Args:
        shapes: of the base's tensors, by name.

    Raises:
        FileNotFoundError, CheckpointError: see `read_lora`.
        ValueError: they have another rank, or stand beside other Linears, than what is trained.
    """
    assert settings.initial is not None
    linears = linears_of(shapes)
    lora = read_lora(settings.initial, linears)
    given = f"initial={str(settings.initial)!r}"
    if different := sorted(set(lora.layers) ^ set(targeted(linears, settings.targets))):
        raise ValueError(f"{given}: its Linears are not those of targets: {first_of(different, thing='Linears')}")
    ranks = sorted({len(layer.down) for layer in lora.layers.values()})
    if ranks != [settings.rank]:
        raise ValueError(f"{given} has rank {', '.join(map(str, ranks))}; allowed is rank={settings.rank}")
    return lora


@torch.no_grad()
def begin_with_(model: Adapted, lora: Lora) -> None:
    """Give the trained tree the low-rank weights of a file, which add to the base what they add in a pipeline.

    Another alpha than the file's is made up for in `up`.
    """
    for name, layer in lora_layers(model.dit).items():
        given = lora.layers[name]
        layer.lora_A[NAME].weight.copy_(given.down)
        layer.lora_B[NAME].weight.copy_(given.up.float() * (given.scale / layer.scaling[NAME]))
