"""The sizes of a model set on disk, for the planner: headers and configurations are read, weights are not."""

from collections.abc import Callable, Mapping

import torch

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import dit_config, open_checkpoint, read_config
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.memory.footprint import Component, dit_component, t5_component, vae_component
from kandinsky.memory.planner import Needs
from kandinsky.model.precision import Precision
from kandinsky.model.sizes import is_quantised
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
        shapes = open_checkpoint(paths.text_encoder).shapes
        fixed["text_embedder"] = t5_component(
            shapes, text_tokens=text_tokens, dtype=names["text_embedder"], int8=text_encoder_int8
        )
    vae_config = read_config(paths.vae, "_class_name", "AutoencoderKLCogVideoX")
    vae_shapes = open_checkpoint(paths.vae).shapes

    def needs(shape: VideoShape, precision: Precision) -> Needs:
        components = dict(fixed)
        saving = None
        if "dit" in names:
            quantise = {"quantise": not precision.is_exact, "quantised_file": quantised_file}
            components["dit"] = dit_component(config, shape, text_tokens=text_tokens, dtype=names["dit"], **quantise)
        if "vae" in names:
            components["vae"], saving = (
                vae_component(vae_config, vae_shapes, shape, dtype=names["vae"], memory_saving=memory_saving)
                for memory_saving in (False, True)
            )
        return Needs(components, saving)

    return needs
