"""The sizes of a model set on disk, for the planner: headers and configurations are read, weights are not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import changing_bytes, dit_config, open_checkpoint, read_config
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.memory.footprint import Component, dit_component, t5_component, vae_component
from kandinsky.memory.modes import Mode
from kandinsky.memory.planner import Needs
from kandinsky.model.precision import Precision
from kandinsky.model.sizes import is_quantised
from kandinsky.text.t5 import EMBEDDING
from kandinsky.video_shape import VideoShape


def needs_from(
    paths: WeightPaths,
    names: Mapping[str, torch.dtype],
    *,
    text_tokens: int,
    text_encoder_int8: bool = False,
    dit: Checkpoint | None = None,
) -> Callable[[VideoShape, Precision], Needs]:
    """What some components need, as a function of the request and the precision.

    Args:
        paths: of the weights.
        names: components that count (those on one GPU), and their dtypes.
        text_tokens: in a prompt.
        text_encoder_int8: T5 in 8 bits.
        dit: the DiT's checkpoint if it is open already.
    """
    dit = dit or open_checkpoint(paths.dit)
    config, quantised_file = dit_config(dit), is_quantised(dit.shapes)
    fixed: dict[str, Component] = {}
    if "text_embedder" in names:
        t5 = open_checkpoint(paths.text_encoder)
        on_device = _t5_on_device(t5)
        dtype = names["text_embedder"]
        component = t5_component(on_device, text_tokens=text_tokens, dtype=dtype, int8=text_encoder_int8)
        component = replace(component, in_file=not text_encoder_int8)
        fixed["text_embedder"] = _changed(component, t5, on_device, dtype)
    vae_config = read_config(paths.vae, "_class_name", "AutoencoderKLCogVideoX")
    vae = open_checkpoint(paths.vae)
    vae_shapes = {name: shape for name, shape in vae.shapes.items() if name.startswith("decoder.")}

    def needs(shape: VideoShape, precision: Precision) -> Needs:
        components = dict(fixed)
        saving = None
        if "dit" in names:
            quantise = {"quantise": not precision.is_exact, "quantised_file": quantised_file}
            component = dit_component(config, shape, text_tokens=text_tokens, dtype=names["dit"], **quantise)
            component = replace(component, in_file=precision.is_exact or quantised_file)
            components["dit"] = _changed(component, dit, dit.shapes, names["dit"])
        if "vae" in names:
            size = {"config": vae_config, "shapes": vae_shapes, "shape": shape, "dtype": names["vae"]}
            components["vae"], saving = (
                _changed(vae_component(**size, memory_saving=memory_saving), vae, vae_shapes, names["vae"])
                for memory_saving in (False, True)
            )
        return Needs(components, saving)

    return needs


def check_in_file(
    modes: Mapping[str, Mode],
    *,
    dit: Checkpoint,
    text_encoder: Path,
    dtypes: Mapping[str, torch.dtype],
    precision: Precision,
    text_encoder_int8: bool,
) -> None:
    """Refuse to read blocks from files that do not hold what is computed with.

    Args:
        modes: of the components.
        dit: its checkpoint.
        text_encoder: folder of T5.
        dtypes: of the components.
        precision: of the DiT's Linears.
        text_encoder_int8: T5 in 8 bits.

    Raises:
        ValueError: a component is to be read from its file, which holds something else; says what to do.
    """
    if modes["dit"].from_file:
        dtype, quantised = dtypes["dit"], is_quantised(dit.shapes)
        if not (precision.is_exact or quantised) or changing_bytes(dit, dit.shapes, dtype):
            raise ValueError(
                f"memory: dit is 'disk', but {dit.path.name} does not hold what precision={precision.name!r} computes "
                f"with in {dtype}; `kandinsky convert --precision {precision.name}` makes a file of it in bfloat16"
            )
    if modes["text_embedder"].from_file:
        t5, dtype = open_checkpoint(text_encoder), dtypes["text_embedder"]
        if text_encoder_int8 or changing_bytes(t5, _t5_on_device(t5), dtype):
            wanted = "8 bits" if text_encoder_int8 else str(dtype)
            raise ValueError(f"memory: text_embedder is 'disk', but its file does not hold weights in {wanted}")


def _t5_on_device(t5: Checkpoint) -> dict[str, tuple[int, ...]]:
    """What of T5's file is on its device: all but the embedding."""
    return {name: shape for name, shape in t5.shapes.items() if name.startswith("encoder.") and name not in EMBEDDING}


def _changed(component: Component, checkpoint: Checkpoint, names: Iterable[str], dtype: torch.dtype) -> Component:
    """With what loading takes besides if the file's dtype is another than the one that it runs in."""
    changing = changing_bytes(checkpoint, names, dtype)
    in_file = component.in_file and changing == 0
    return replace(component, loading=component.loading + changing, in_file=in_file)
