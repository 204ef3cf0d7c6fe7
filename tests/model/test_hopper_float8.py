"""The Hopper kernel of 8-bit attention, given its operands."""

import pytest
import torch
from helpers import relative_error
from model_helpers import LENGTHS

from kandinsky.model import hopper_float8
from kandinsky.model.nvrtc import source_of


def test_the_source_lies_beside_the_module():
    source = source_of("hopper_float8.cu").decode()
    assert all(name in source for name in ("GROUPS", "KEYS", "STAGES", "ROW_BYTES", "EXTRA", "attend"))


def stored(values: torch.Tensor) -> torch.Tensor:
    """`[tokens, heads, 64]` as the kernel reads it, in plain PyTorch: keys 0, 1, 8, 9, 2, 3, 10, 11, ... of each 16."""
    tokens, heads, dim = values.shape
    padded = torch.nn.functional.pad(values, (0, 0, 0, 0, 0, -tokens % 128))
    sixteen = padded.view(-1, 2, 4, 2, heads, dim)  # half, thread, one of two
    return sixteen.transpose(1, 2).reshape(-1, heads, dim).permute(1, 2, 0).contiguous()


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a PyTorch without CUDA")
def test_it_is_refused_where_it_does_not_run():
    with pytest.raises(RuntimeError, match="attention='float8' needs a Hopper GPU"):
        hopper_float8.kernel(0)


def test_the_order_of_keys():
    rows = stored(torch.arange(32.0).view(32, 1, 1).expand(-1, 1, 64))[0, 0]
    assert rows[:16].tolist() == [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
    assert rows[16:32].tolist() == [16 + row for row in rows[:16].tolist()]
    assert rows[32:].tolist() == [0] * 96


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_against_float64_on_the_same_operands(tokens, heads, spread):
    """What is left is the rounding of the weights; with few keys, or few that matter, it does not average out."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    queries_keys = (spread * torch.randn(tokens, 2, heads, 64, device="cuda")).to(torch.float8_e4m3fn)
    values = torch.randn(tokens, heads, 64, device="cuda").to(torch.float8_e4m3fn)
    outputs = [hopper_float8.launch(queries_keys, stored(values.float()).to(torch.float8_e4m3fn)) for _ in range(2)]
    query, key = queries_keys.double().permute(1, 2, 0, 3)
    weights = (query @ key.mT * torch.tensor(2.0).log()).softmax(-1)
    expected = (weights @ values.double().transpose(0, 1)).transpose(0, 1)
    assert relative_error(outputs[0], expected) < 2**-4  # of a weight; 2^-4 is the format's
    assert torch.equal(*outputs)
