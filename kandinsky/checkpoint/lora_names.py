"""Names of low-rank weights as users' files have them, to the Linears of the DiT that they belong to.

Three ways to write `to_query_key_value` of the first block are in use, each with a prefix of its own:

    base_model.model.transformer_blocks.0.0.self_attention.to_query_key_value.lora_A.weight     PEFT, diffusers
    transformer_blocks.0.0.self_attention.to_query_key_value.lora_down.weight                   others
    lora_unet_transformer_blocks_0_0_self_attention_to_query_key_value.lora_down.weight         kohya

These are functions over names; no file is opened.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

PREFIXES = ("base_model.model.", "base_model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "dit.")
"""What tools put before the names of a model's own."""
_PART = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<letter>A|B)(?:\.\w+)?\.weight"
    r"|lora[._](?P<way>down|up)(?:\.\w+)?\.weight|(?P<alpha>alpha))"
)
_KINDS = {"A": "down", "down": "down", "B": "up", "up": "up", "alpha": "alpha"}
_FLAT = re.compile(r"lora_[a-z0-9]+_")


@dataclass(frozen=True)
class Grouped:
    """Tensors of a file by what they are.

    Args:
        layers: of each Linear of the model, the names in the file of its parts "down", "up" and perhaps "alpha".
        elsewhere: names of low-rank weights of modules that the model does not have.
        unknown: names that are no such weights.
        incomplete: names of which the other half is missing.
    """

    layers: Mapping[str, Mapping[str, str]]
    elsewhere: list[str]
    unknown: list[str]
    incomplete: list[str]


def grouped(names: Iterable[str], linears: Collection[str]) -> Grouped:
    """Sort a file's names.

    Args:
        names: of its tensors.
        linears: names of the model's Linears.
    """
    flat = {name.replace(".", "_"): name for name in linears}
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    elsewhere, unknown = [], []
    for name in names:
        found = _PART.fullmatch(name)
        if found is None:
            unknown.append(name)
            continue
        linear = linear_of(found["module"], linears, flat)
        if linear is None:
            elsewhere.append(name)
        else:
            layers[linear][_KINDS[found["letter"] or found["way"] or found["alpha"]]] = name
    incomplete = [part for parts in layers.values() if not {"down", "up"} <= parts.keys() for part in parts.values()]
    return Grouped(layers, elsewhere, unknown, incomplete)


def linear_of(module: str, linears: Collection[str], flat: Mapping[str, str]) -> str | None:
    """The model's Linear that a file calls `module`; None if it has none of that name.

    Args:
        linears: names of the model's Linears.
        flat: the same by their names with underscores for dots, as kohya's scripts write them.
    """
    if "." not in module and (short := _FLAT.sub("", module, count=1)) != module:
        return flat.get(short)
    while module not in linears:
        prefix = next((each for each in PREFIXES if module.startswith(each)), None)
        if prefix is None:
            return None
        module = module.removeprefix(prefix)
    return module
