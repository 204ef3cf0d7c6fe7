"""Losses of the adversarial distillation, over the scores of all heads.

Hinge loss: arXiv 1705.02894. The penalty is R1 (arXiv 1801.04406) by finite differences, which needs no second
derivative of attention: how much scores of real data change when it moves a little (arXiv 2501.08316, section 3.3).

Legend: scores: for each head `[clips, visual_tokens]`
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_score(scores: list[Tensor]) -> Tensor:
    """Over tokens, clips and heads."""
    return torch.stack([each.float().mean() for each in scores]).mean()


def generator_loss(fake: list[Tensor]) -> Tensor:
    """The student wants high scores."""
    return -mean_score(fake)


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Hinge: real scores above 1, fake ones below -1."""
    return mean_score([F.relu(1 - each.float()) for each in real]) + mean_score(
        [F.relu(1 + each.float()) for each in fake]
    )


def approximate_r1(real: list[Tensor], moved: list[Tensor], distance: float) -> Tensor:
    """Squared change of the scores of real data, over the squared distance (per element) that it was moved by."""
    pairs = zip(real, moved, strict=True)
    return mean_score([(one.float() - other.float()).square() for one, other in pairs]) / distance**2
