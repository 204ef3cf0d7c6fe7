"""For which devices our Triton kernels are not tried at all, and why; and an error in one line."""

from importlib.util import find_spec

import torch

CAPABILITY = (8, 0)
"""Smallest CUDA compute capability that our Triton kernels are compiled for in tests."""


def why_not_fused(device: torch.device) -> str | None:
    """Why our Triton kernels are not tried on a device; None where they are."""
    if device.type != "cuda":
        return f"Triton's kernels need a CUDA device, this is {device.type}"
    if torch.version.hip is not None:
        return "Triton's kernels are not tested on ROCm"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < CAPABILITY:
        return f"Triton's kernels need compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, this GPU has {major}.{minor}"
    return None


def first_line(error: BaseException) -> str:
    """An error in one line: its class, and how its message begins."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
