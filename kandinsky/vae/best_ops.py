"""Which operations a decoder runs with: Triton's kernels where they can, plain PyTorch anywhere else."""

import logging
from importlib.util import find_spec

import torch

from kandinsky.vae.activation import Activation
from kandinsky.vae.decoder_weights import DecoderConfig, NormWeights
from kandinsky.vae.norm import Ops, PlainOps

_log = logging.getLogger(__name__)
CAPABILITY = (8, 0)
"""Smallest CUDA compute capability that the kernels are compiled for in tests."""


def best_ops(device: torch.device, config: DecoderConfig, *, dtype: torch.dtype = torch.bfloat16) -> Ops:
    """Triton's kernels on CUDA where the channel counts allow and a launch succeeds, else plain PyTorch.

    Args:
        device: of the decoder.
        config: of the decoder.
        dtype: of the decoder.
    """
    powers = [n & (n - 1) == 0 for n in (*config.block_out_channels, config.norm_num_groups)]
    if device.type != "cuda" or torch.version.hip is not None or not all(powers) or find_spec("triton") is None:
        return PlainOps()
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return PlainOps()
    try:
        from kandinsky.vae.kernels import TritonOps

        ops = TritonOps()
        launch(ops, config, device=device, dtype=dtype)
    except Exception as error:  # noqa: BLE001  # Triton, compilers and drivers each have their own
        _log.warning("the VAE's Triton kernels do not run here, PyTorch's own are taken: %s", type(error).__name__)
        return PlainOps()
    return ops


@torch.inference_mode()
def launch(ops: Ops, config: DecoderConfig, *, device: torch.device, dtype: torch.dtype) -> None:
    """Run each operation once, on zeros of the last level's channels."""
    channels, width = config.block_out_channels[0], config.latent_channels
    zeros = torch.zeros(channels, device=device)
    latent_weight = torch.zeros(2 * channels, width, device=device, dtype=dtype)
    latent_bias = torch.zeros(2 * channels, device=device, dtype=dtype)
    norm = NormWeights(zeros, zeros, zeros, latent_weight, latent_bias, config.norm_num_groups)
    x = Activation(torch.zeros(2, 8, 8, channels, device=device, dtype=dtype), frames=2)
    latent = torch.zeros(1, 4, 4, 2 * channels, device=device, dtype=dtype)
    coefficients = ops.statistics(x, norm)
    ops.normalise(x, coefficients, latent, start=0, out=torch.empty_like(x.data))
    ops.add(x, x, zeros, norm)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
