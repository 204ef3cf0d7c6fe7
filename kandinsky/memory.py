"""Where each part of the model lives while another one runs."""

from kandinsky.model.dit import DiT


def offload_modulation_(dit: DiT) -> None:
    """Move the blocks' modulation layers to the host.

    A pipeline computes the modulation of its few timesteps once, a table of 12 MB at full size in bfloat16; the 1.6 GB
    of weights that made it are not needed on the device again.
    """
    for block in dit.blocks:
        block.visual_modulation.to("cpu")
        block.text_modulation.to("cpu")
