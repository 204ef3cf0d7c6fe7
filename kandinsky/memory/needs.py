"""The sizes of a model set on disk, for the planner: headers and configurations are read, weights are not."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import changing_bytes, dit_config, open_checkpoint, read_config
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.memory.footprint import Component, dit_component, t5_component, vae_component
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
        on_device = {
            name: shape for name, shape in t5.shapes.items() if name.startswith("encoder.") and name not in EMBEDDING
        }
        dtype = names["text_embedder"]
        component = t5_component(on_device, text_tokens=text_tokens, dtype=dtype, int8=text_encoder_int8)
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
            components["dit"] = _changed(component, dit, dit.shapes, names["dit"])
        if "vae" in names:
            size = {"config": vae_config, "shapes": vae_shapes, "shape": shape, "dtype": names["vae"]}
            components["vae"], saving = (
                _changed(vae_component(**size, memory_saving=memory_saving), vae, vae_shapes, names["vae"])
                for memory_saving in (False, True)
            )
        return Needs(components, saving)

    return needs


def _changed(component: Component, checkpoint: Checkpoint, names: Iterable[str], dtype: torch.dtype) -> Component:
    """With what loading takes besides if the file's dtype is another than the one that it runs in."""
    return replace(component, loading=component.loading + changing_bytes(checkpoint, names, dtype))
