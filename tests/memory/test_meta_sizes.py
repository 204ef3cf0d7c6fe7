"""Sizes on the meta device against PyTorch's own."""

import pytest
import torch

from kandinsky.memory import meta_sizes
from kandinsky.memory.meta_sizes import result_of

aten = torch.ops.aten
META = torch.device("meta")


def tensor(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device=META)


X, FLOAT = tensor(4, 6), tensor(6, dtype=torch.float32)
CALLS = [
    (aten.layer_norm.default, (X, [6]), {}),
    (aten.silu.default, (X,), {}),
    (aten.clamp.default, (FLOAT, 0, 1), {}),
    (aten.exp.default, (FLOAT,), {}),
    (aten.cos.default, (FLOAT,), {}),
    (aten.sin.default, (FLOAT,), {}),
    (aten.empty_like.default, (X,), {}),
    (aten.empty_like.default, (X,), {"dtype": torch.uint8}),
    (aten.zeros_like.default, (X,), {}),
    (aten.add.Tensor, (X, FLOAT), {}),
    (aten.add.Tensor, (X, tensor(dtype=torch.float32)), {"alpha": 2}),
    (aten.sub.Tensor, (tensor(5, 1, 6), X[:, :1].expand(4, 6)[:1]), {}),
    (aten.mul.Tensor, (X, 2.0), {}),
    (aten.mul.Tensor, (tensor(), tensor(dtype=torch.float32)), {}),
    (aten.div.Tensor, (X, 3), {}),
    (aten.div.Tensor, (tensor(3, dtype=torch.int64), 2), {}),
    (aten.addcmul.default, (X, tensor(4, 1), tensor(6)), {}),
    (aten.conv3d.default, (tensor(1, 3, 5, 6, 7), tensor(8, 3, 3, 3, 3)), {}),
    (aten.conv3d.default, (tensor(1, 3, 5, 6, 7), tensor(8, 3, 3, 3, 3), None, [1, 2, 2], [0, 1, 1]), {}),
    (aten.conv2d.default, (tensor(3, 6, 7), tensor(8, 3, 3, 3), tensor(8), [1], [1], [2]), {}),
    (aten.linear.default, (tensor(2, 3, 6), tensor(5, 6), tensor(5)), {}),
    (aten.matmul.default, (X, tensor(6, 5)), {}),
    (aten.matmul.default, (X, tensor(6)), {}),
    (aten.cat.default, ([X, X[:1]],), {}),
    (aten.cat.default, ([X, FLOAT[None].expand(4, 6)], -1), {}),
    (aten.stack.default, ([X, X, X],), {}),
    (aten.stack.default, ([X, X, X], -1), {}),
]


@pytest.mark.parametrize(("func", "args", "kwargs"), CALLS, ids=lambda value: str(value)[:24])
def test_sizes_are_those_of_pytorch(func, args, kwargs):
    expected, found = func(*args, **kwargs), result_of(func, args, kwargs)
    assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, META)


def test_all_that_is_known_is_compared():
    assert {func for func, _, _ in CALLS} == set(meta_sizes._SIZES)


def test_what_is_unknown_or_elsewhere_runs():
    assert result_of(aten.tanh.default, (X,), {}).shape == X.shape
    assert torch.equal(result_of(aten.add.Tensor, (torch.ones(2), 1), {}), torch.full((2,), 2.0))
