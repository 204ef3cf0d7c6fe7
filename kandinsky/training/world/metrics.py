"""Figures of sets of clips: sharpness, and the Frechet distance on features of a fixed random network.

Random features tell distributions apart without weights that somebody would have to download; their distances compare
rows of one table with clips of one size, not papers (Frechet distance of Gaussians: arXiv 1706.08500). Whether a clip
shows what was asked for is `judge`'s business.

Legend: F frames; videos: uint8 [clips, F, height, width, 3]
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.training.world.judge import most

FEATURES = 64
LEAST_CHROMA = 0.12
"""Under which there is no object."""
FRAMES = 6
"""Pairs of neighbouring frames that features are taken from."""
_LAYERS = ((6, 32), (32, 64), (64, FEATURES))
"""Channels in and out of the random network's convolutions, 5 wide; each halves the picture."""


def sharpness(videos: Tensor) -> Tensor:
    """How sharp the object's edge is, whatever its colours and size: 1 is a step, 1 / (1 + w) an edge w pixels wide.

    Counted are pixels between a fifth and four fifths of the object's chroma (the difference between a pixel's largest
    and smallest channel), for each place where it crosses one half; backgrounds have none, whether they flicker or not.
    Without an object it is 0.

    Returns:
        `[clips]`.
    """
    return torch.stack([_sharpness(video.movedim(-1, 1).float() / 255) for video in videos])


def _sharpness(pixels: Tensor) -> Tensor:
    chroma = pixels.amax(1) - pixels.amin(1)  # [F, height, width]
    share = chroma / most(chroma).clamp(min=LEAST_CHROMA)[:, None, None]
    inside = share > 0.5
    crossings = (inside[:, 1:] != inside[:, :-1]).sum() + (inside[:, :, 1:] != inside[:, :, :-1]).sum()
    between = ((share > 0.2) & (share < 0.8)).sum()
    return crossings / (crossings + between).clamp(min=1)


@torch.no_grad()
def random_features(videos: Tensor) -> Tensor:
    """Features of clips, float64 `[clips, 64]`: a random convolutional network on frames and their differences.

    Clips have 2 frames or more, those of all sets that are compared equally many.
    """
    generator = torch.Generator().manual_seed(0)
    filters = [torch.randn(out, into, 5, 5, generator=generator) / (25 * into) ** 0.5 for into, out in _LAYERS]
    return torch.stack([_features(video, filters) for video in videos]).double()


def _features(video: Tensor, filters: list[Tensor]) -> Tensor:
    picked = torch.linspace(0, len(video) - 2, min(FRAMES, len(video) - 1)).round().long()
    first, second = (video[index].permute(0, 3, 1, 2).float() / 127.5 - 1 for index in (picked, picked + 1))
    x = torch.cat((first, second - first), dim=1)  # [pairs, 6, height, width]
    for weight in filters:
        x = F.avg_pool2d(F.relu(F.conv2d(x, weight, padding=2)), 2) * 1.5
    return x.mean((0, 2, 3))


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Between Gaussians fitted to two sets of features `[n, features]`, in float64; 0 for equal sets."""
    (mean, covariance), (other_mean, other_covariance) = (
        (x.double().mean(0), x.double().T.cov()) for x in (one, other)
    )
    # trace of sqrt(A B) by the symmetric sqrt(A) B sqrt(A), whose eigenvalues are the same
    root = _square_root(covariance)
    mixed = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    traces = covariance.trace() + other_covariance.trace() - 2 * mixed
    return ((mean - other_mean).square().sum() + traces).item()


def _square_root(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
