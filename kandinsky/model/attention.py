"""Attention backends behind one callable: a table to which a backend is a row.

A backend takes `qkv: [tokens, 3, heads, head_dim]`, one sequence without a mask, and returns
`[tokens, heads, head_dim]`. `torch` is scaled_dot_product_attention as PyTorch chooses it and works everywhere; `cudnn`
is the same operation with cuDNN's kernel, the fastest that PyTorch brings on Hopper. flash_attn is imported only by its
own rows, and only if asked for.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.model.grouping import Attend


def torch_sdpa(qkv: Tensor) -> Tensor:
    """PyTorch's scaled_dot_product_attention with the kernel that it chooses."""
    query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1)  # each [1, heads, tokens, head_dim]
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


def cudnn_sdpa(qkv: Tensor) -> Tensor:
    """scaled_dot_product_attention restricted to cuDNN's kernel.

    Heads are made contiguous first: a copy of 0.2 ms that saves the kernel 2 ms at 25,424 tokens on an H200.
    """
    query, key, value = qkv.permute(1, 2, 0, 3).contiguous().unsqueeze(1)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


def flash_attention_2(qkv: Tensor) -> Tensor:
    """flash_attn 2 on the packed buffer."""
    from flash_attn import flash_attn_qkvpacked_func  # pyright: ignore[reportMissingImports]

    return flash_attn_qkvpacked_func(qkv[None])[0]


def flash_attention_3(qkv: Tensor) -> Tensor:
    """flash_attn 3 (Hopper) on the packed buffer."""
    from flash_attn_interface import flash_attn_qkvpacked_func  # pyright: ignore[reportMissingImports]

    return flash_attn_qkvpacked_func(qkv[None])[0]


BACKENDS: Mapping[str, Attend] = MappingProxyType(
    {
        "torch": torch_sdpa,
        "cudnn": cudnn_sdpa,
        "flash_attn_2": flash_attention_2,
        "flash_attn_3": flash_attention_3,
    }
)
_PACKAGES = {"flash_attn_2": "flash_attn", "flash_attn_3": "flash_attn_interface"}


def check_attention(name: str) -> None:
    """Refuse a backend that does not exist or whose package is not installed.

    Raises:
        ValueError: names what is allowed, or what to install.
    """
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"attention={name!r}: allowed are 'auto', {', '.join(map(repr, BACKENDS))}")
    package = _PACKAGES.get(name)
    if package is not None and find_spec(package) is None:
        raise ValueError(
            f"attention={name!r} needs the package {package}, which is not installed; 'auto' works without it"
        )


def choose_attention(name: str, device: torch.device) -> Attend:
    """The backend called `name`; `auto` takes cuDNN's on GPUs where it is the fastest (compute capability 9 and up)."""
    check_attention(name)
    if name != "auto":
        return BACKENDS[name]
    hopper = (
        device.type == "cuda" and torch.version.cuda is not None and torch.cuda.get_device_capability(device)[0] >= 9
    )
    return cudnn_sdpa if hopper else torch_sdpa
