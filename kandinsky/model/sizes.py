"""Sizes of a DiT, read off the names and shapes of its tensors.

Nothing here opens a file: whoever has one hands in its shapes, and adds the file's name to the error.
"""

from collections.abc import Mapping

from kandinsky.config import DiTConfig

Shapes = Mapping[str, tuple[int, ...]]
PATCH_SIZE = (1, 2, 2)
"""Of every published checkpoint; the only size of the DiT that shapes do not tell."""


def dit_config(shapes: Shapes) -> DiTConfig:
    """Sizes of the DiT whose state dict has tensors of these shapes.

    Raises:
        ValueError: a key of a DiT is not there; the message names it.
    """

    def size(name: str, axis: int) -> int:
        if name not in shapes:
            raise ValueError(f"not a Kandinsky 4 DiT: key {name!r} is missing")
        return shapes[name][axis]

    patch = PATCH_SIZE[0] * PATCH_SIZE[1] * PATCH_SIZE[2]
    blocks = {name.split(".")[1] for name in shapes if name.startswith("transformer_blocks.")}
    time_axis, height_axis, width_axis = (2 * size(f"rope_embeddings.args_{axis}", 1) for axis in range(3))
    return DiTConfig(
        in_visual_dim=size("visual_embeddings.in_layer.weight", 1) // patch,
        in_text_dim=size("text_embeddings.in_layer.weight", 1),
        out_visual_dim=size("out_layer.out_layer.weight", 0) // patch,
        time_dim=size("time_embeddings.out_layer.weight", 0),
        patch_size=PATCH_SIZE,
        model_dim=size("visual_embeddings.in_layer.weight", 0),
        ff_dim=size("transformer_blocks.0.0.feed_forward.in_layer.weight", 0),
        num_blocks=len(blocks),
        axes_dims=(time_axis, height_axis, width_axis),
    )


def is_quantised(shapes: Shapes) -> bool:
    """Whether the Linears of the blocks are float8, as `kandinsky convert --precision fast` writes them."""
    return any(name.endswith(".to_query_key_value.scale") for name in shapes)
