"""Figures of sets of clips: sharpness, and the Frechet distance on features of a fixed random network.

Random features tell distributions apart without weights that somebody would have to download; their distances compare
rows of one table, not papers (Frechet distance of Gaussians: arXiv 1706.08500).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = 64


def sharpness(videos: Tensor) -> Tensor:
    """Mean of the largest 2 % of brightness differences between neighbouring pixels, of each clip.

    Args:
        videos: uint8 `[clips, F, height, width, 3]`.

    Returns:
        `[clips]`, 0 to 255.
    """
    gray = videos.float().mean(-1)
    across = (gray[..., 1:] - gray[..., :-1]).abs().flatten(1)
    return across.topk(max(1, across.shape[1] // 50), dim=1).values.mean(1)


@torch.no_grad()
def random_features(videos: Tensor) -> Tensor:
    """Features of clips, float64 `[clips, 64]`: a random convolutional network on frames and their differences.

    Args:
        videos: uint8 `[clips, F, height, width, 3]`.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = ((6, 32), (32, 64), (64, FEATURES))
    filters = [torch.randn(out, into, 5, 5, generator=generator) / (25 * into) ** 0.5 for into, out in sizes]
    return torch.stack([_features(video, filters) for video in videos]).double()


def _features(video: Tensor, filters: list[Tensor]) -> Tensor:
    frames = video[:: max(1, len(video) // 6)].float().permute(0, 3, 1, 2) / 127.5 - 1
    x = torch.cat((frames[1:], frames[1:] - frames[:-1]), dim=1)
    for weight in filters:
        x = F.avg_pool2d(F.relu(F.conv2d(x, weight, padding=2)), 2) * 1.5
    return x.mean((0, 2, 3))


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Between Gaussians fitted to features `[n, features]`, in units of the second one's standard deviations."""
    spread = other.double().std(0).clamp(min=1e-12)
    one, other = one / spread, other / spread
    means, covariances = zip(*((x.double().mean(0), x.double().T.cov()) for x in (one, other)), strict=True)
    # trace of sqrt(A B): the eigenvalues of A B are real and not negative
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    traces = covariances[0].trace() + covariances[1].trace() - 2 * roots
    return ((means[0] - means[1]).square().sum() + traces).item()
