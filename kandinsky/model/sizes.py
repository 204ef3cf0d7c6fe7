"""Sizes of a DiT, read off the names and shapes of its tensors.

Nothing here opens a file: whoever has one hands in its shapes, and adds the file's name to the error.
"""

from collections.abc import Mapping

from kandinsky.config import PUBLISHED_DIT, DiTConfig

Shapes = Mapping[str, tuple[int, ...]]
PATCH_SIZE = (1, 2, 2)
"""Of every published checkpoint; the only size of the DiT that shapes do not tell."""
ROPE = tuple(f"rope_embeddings.args_{axis}" for axis in range(3))
"""Tables of angles, which a state dict may lack."""


def dit_config(shapes: Shapes) -> DiTConfig:
    """Sizes of the DiT whose state dict has tensors of these shapes.

    Raises:
        ValueError: these are not a DiT's; the message names the key.
    """
    patch = PATCH_SIZE[0] * PATCH_SIZE[1] * PATCH_SIZE[2]
    numbers = (name.split(".")[1] for name in shapes if name.startswith("transformer_blocks."))
    blocks = {int(number) for number in numbers if number.isdecimal()}
    try:
        return DiTConfig(
            in_visual_dim=_size(shapes, "visual_embeddings.in_layer.weight", 1) // patch,
            in_text_dim=_size(shapes, "text_embeddings.in_layer.weight", 1),
            out_visual_dim=_size(shapes, "out_layer.out_layer.weight", 0) // patch,
            time_dim=_size(shapes, "time_embeddings.out_layer.weight", 0),
            patch_size=PATCH_SIZE,
            model_dim=_size(shapes, "visual_embeddings.in_layer.weight", 0),
            ff_dim=_size(shapes, "transformer_blocks.0.0.feed_forward.in_layer.weight", 0),
            num_blocks=max(blocks) + 1,
            axes_dims=axes_dims(shapes),
        )
    except ValueError as error:
        raise ValueError(f"not a Kandinsky 4 DiT: {error}") from None


def axes_dims(shapes: Shapes) -> tuple[int, int, int]:
    """Channels of a head that RoPE turns for time, height and width.

    They are those of the tables in the state dict. Of a state dict without tables, which can be computed, they are the
    published ones if the size of a head agrees.

    Raises:
        ValueError: the shapes don't tell.
    """
    found = [2 * _size(shapes, name, 1) if name in shapes else None for name in ROPE]
    if None not in found:
        time, height, width = (dim for dim in found if dim is not None)
        return time, height, width
    head_dim = _size(shapes, "transformer_blocks.0.0.self_attention.query_norm.weight", 0)
    axes = PUBLISHED_DIT.axes_dims
    if head_dim != sum(axes) or any(dim not in (None, axis) for dim, axis in zip(found, axes, strict=True)):
        absent = next(name for name, dim in zip(ROPE, found, strict=True) if dim is None)
        raise ValueError(
            f"key {absent!r} is missing, and with heads of {head_dim} channels nothing else tells which of them RoPE "
            f"turns for which axis (of {sum(axes)} these are {axes})"
        )
    return axes


def _size(shapes: Shapes, name: str, axis: int) -> int:
    if name not in shapes:
        raise ValueError(f"key {name!r} is missing")
    if len(shapes[name]) <= axis:
        raise ValueError(f"key {name!r} has the shape {shapes[name]}")
    return shapes[name][axis]


def is_quantised(shapes: Shapes) -> bool:
    """Whether the Linears of the blocks are float8, as `kandinsky convert --precision fast` writes them."""
    return any(name.endswith(".to_query_key_value.scale") for name in shapes)
