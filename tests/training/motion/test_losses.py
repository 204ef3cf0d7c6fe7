"""What the loss is smallest for."""

import torch

from kandinsky.interpolate.network import FlowNetwork
from kandinsky.training.motion.losses import laplacian, loss, pyramid_distance
from kandinsky.training.motion.synthesis import Triplets


def frames(seed):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_bands_add_up():
    wanted = frames(0)
    *bands, rest = laplacian(wanted)
    for band in reversed(bands):
        rest = band + torch.nn.functional.interpolate(rest, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(rest, wanted, atol=1e-5)


def test_distance():
    first, second = frames(0), frames(1)
    assert torch.equal(pyramid_distance(first, first), torch.zeros(2))
    assert (pyramid_distance(first, second) > pyramid_distance(first, 0.9 * first + 0.1 * second)).all()


def test_a_better_frame_has_a_smaller_loss():
    """An untrained network averages what is still: right for a middle frame that is the average."""
    first = torch.nn.functional.interpolate(frames(0)[:, :, ::8, ::8], scale_factor=8, mode="bicubic")
    second, half = first + 0.1, torch.full((2,), 0.5)
    between = FlowNetwork()(first, second, half)
    right, right_db = loss(between, Triplets(first, (first + second) / 2, second, half))
    wrong, wrong_db = loss(between, Triplets(first, first, second, half))
    assert right < wrong
    assert right_db > wrong_db + 20
