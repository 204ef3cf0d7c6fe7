"""Names of tensors as users' files have them: within wrappers, behind prefixes, beside what belongs to nothing here.

Whoever saves a module that was wrapped (for training on several GPUs, by `torch.compile`, with its optimiser) gets
other names than the module's own. What is unambiguous is taken off. These are functions over names; no file is opened.
"""

from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

WRAPPERS = (
    *("state_dict", "model_state_dict", "ema_state_dict", "model", "module", "ema", "ema_model", "model_ema"),
    *("params", "params_ema", "weights", "net", "network", "student", "generator", "dit", "transformer"),
)
"""Keys of a saved dict under which a state dict may be."""
INSIDE = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that wrappers of modules add, at any depth."""
DIT = ("visual_embeddings.in_layer.weight", "text_embeddings.in_layer.weight", "out_layer.out_layer.weight")
T5 = ("encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight")
VAE = ("decoder.conv_in.conv.weight", "encoder.conv_in.conv.weight")
MODELS = {"a Kandinsky 4 DiT": DIT, "a T5 text encoder": T5, "a CogVideoX VAE": VAE}
"""Names by which a model is recognised behind a prefix."""
SIGNS = {
    "a LoRA": ("lora", "hada_", "lokr_"),
    "the state of an optimiser": ("exp_avg",),
    "a Kandinsky 4 DiT": ("visual_embeddings.", "visual_modulation.", "text_modulation.", "to_query_key_value."),
    "a T5 text encoder": ("SelfAttention.", "DenseReluDense."),
    "a CLIP model": ("text_model.", "vision_model."),
    "a VAE": ("quant_conv.", "mid_block.", "up_blocks.", "conv_in."),
    "a diffusion model of another kind": ("attn1.", ".to_q.", "patch_embed", "double_blocks."),
}
"""What names have in them, by what a file may hold; the first that is found counts."""


def state_dict_in(content: object) -> tuple[Mapping[str, Tensor], tuple[str, ...], list[str]]:
    """The state dict in what a `.pt` file holds.

    Returns:
        Its tensors, the keys of the wrappers around it, and what stands beside it or is no tensor.

    Raises:
        ValueError: there is none, or more than one; the message goes on from the name of the file.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"is not a state dict: expected a mapping from names to tensors, found {_kind(content)}")
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    flat = any("." in name for name in tensors)
    inner = [] if flat else [key for key in WRAPPERS if _has_tensors(content.get(key))]
    if len(inner) > 1:
        keys = ", ".join(map(repr, inner))
        raise ValueError(f"holds several state dicts: {keys}; save the one that is meant by itself")
    if inner:
        found, wrappers, beside = state_dict_in(content[inner[0]])
        return found, (inner[0], *wrappers), [*(str(key) for key in content if key != inner[0]), *beside]
    if not tensors:
        held = ", ".join(f"{key!r} ({_kind(value)})" for key, value in list(content.items())[:5]) or "nothing"
        raise ValueError(f"is not a state dict: expected a mapping from names to tensors, found {held}")
    return tensors, (), [str(key) for key in content if key not in tensors]


def _has_tensors(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(inner, Tensor) for inner in value.values()) or any(
        _has_tensors(value.get(key)) for key in WRAPPERS
    )


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, Mapping | list | tuple) else "")


def own_names(names: Iterable[str]) -> tuple[Mapping[str, str], list[str]]:
    """What a model calls its tensors, each with its name in the file, and the parts of names that were taken off.

    Names that belong to nothing here stay as they are; so does one whose short form is there as well.

    Raises:
        ValueError: several models of one kind are there; the message goes on from the name of the file.
    """
    plain = {name: ".".join(part for part in name.split(".") if part not in INSIDE) for name in names}
    prefix = _prefix(plain.values())
    short = {name: value.removeprefix(prefix) for name, value in plain.items()}
    found = {name: name for name, own in short.items() if own == name}
    taken: set[str] = set()
    for name, own in short.items():
        if own == name:
            continue
        if found.get(own) == own:
            found[name] = name
            continue
        if own in found:
            raise ValueError(f"holds {own!r} twice, as {found[own]!r} and {name!r}")
        found[own] = name
        taken |= {f"{part}." for part in name.split(".") if part in INSIDE}
        taken |= {prefix} - {""}
    return found, sorted(taken)


def _prefix(names: Collection[str]) -> str:
    """What stands before every name of the first model that is recognised."""
    for model, marks in MODELS.items():
        ends = [name.removesuffix(mark) for mark in marks for name in names if name.endswith(mark)]
        prefixes = {before for before in ends if before[-1:] in ("", ".")}
        if "" in prefixes:
            return ""
        if len(prefixes) > 1:
            raise ValueError(f"holds {model} more than once, under {', '.join(map(repr, sorted(prefixes)))}")
        if prefixes:
            return prefixes.pop()
    return ""


def described(names: Collection[str]) -> str:
    """What a file holds, as far as its names tell, for messages."""
    for kind, parts in SIGNS.items():
        if any(part in name for name in names for part in parts):
            return f"it looks like {kind}: {first_of(names)}"
    return f"it holds {first_of(names)}"


def first_of(names: Iterable[str], *, thing: str = "tensors") -> str:
    """How many, and the first few by name."""
    names = list(names)
    return f"{len(names)} {thing}" + (f", first {', '.join(map(repr, names[:3]))}" if names else "")
