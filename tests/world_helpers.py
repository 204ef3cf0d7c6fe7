"""What the tests of the synthetic world share."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from helpers import TINY
from torch import Tensor

CPU = torch.device("cpu")
TEXT_TOKENS = 12


def blurred(clip: Tensor, sigma: float = 1.5, noise: float = 8.0) -> Tensor:
    """A clip `[F, height, width, 3]` as a network might show it: soft, and with noise."""
    steps = torch.arange(-4, 5).float()
    kernel = torch.exp(-steps.square() / (2 * sigma**2))
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    pixels = F.pad(clip.float().permute(0, 3, 1, 2), (4, 4, 4, 4), mode="replicate")
    soft = F.conv2d(pixels, kernel.expand(3, 1, 9, 9), groups=3)
    noisy = soft + noise * torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    return noisy.clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)


def world_weights(folder: Path) -> Path:
    """The tiny weights in `folder`, declared as a model set of 32x32 pixels and short texts."""
    for part in TINY.iterdir():
        if part.name != "model_set.json":
            (folder / part.name).symlink_to(part)
    sizes = {"resolution": 64, "sizes": [[32, 32]], "max_seconds": 2, "text_tokens": TEXT_TOKENS, "fps": 8}
    (folder / "model_set.json").write_text(json.dumps(sizes))
    return folder
