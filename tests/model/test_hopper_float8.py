"""The Hopper kernel of 8-bit attention, given its operands."""

from concurrent.futures import ThreadPoolExecutor

import hopper_on_a_cpu
import pytest
import torch
from helpers import relative_error
from model_helpers import LENGTHS, stored

from kandinsky.model import hopper_float8
from kandinsky.model.nvrtc import source_of

FLOAT8 = torch.float8_e4m3fn
DTYPES = pytest.mark.parametrize("dtype", hopper_float8.DTYPES, ids=str)


def weights_of(logits: torch.Tensor) -> torch.Tensor:
    """Softmax's weights as the kernel rounds them, up to a factor for each row; logits in units of log2."""
    logits = logits.half().double()
    binades = logits - logits.amax(-1, keepdim=True).ceil() + 14
    return (8 * binades.clamp_min(0)).round().to(torch.uint8).view(FLOAT8).double()


def test_the_source_lies_beside_the_module():
    source = source_of("hopper_float8.cu").decode()
    assert all(name in source for name in (*hopper_float8.macros(FLOAT8), "attend"))


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a PyTorch without CUDA")
@DTYPES
def test_it_is_refused_where_it_does_not_run(dtype):
    with pytest.raises(RuntimeError, match="attention='float8' needs a Hopper GPU"):
        hopper_float8.kernel(0, dtype)


def test_tiles_fit_into_shared_memory():
    assert all(hopper_float8.shared(dtype) <= 227 * 1024 for dtype in hopper_float8.DTYPES)


def test_the_order_of_keys():
    rows = stored(torch.arange(32.0).view(32, 1, 1).expand(-1, 1, 64))[0, 0]
    assert rows[:16].tolist() == [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]
    assert rows[16:32].tolist() == [16 + row for row in rows[:16].tolist()]
    assert rows[32:].tolist() == [0] * 96


def test_a_byte_is_a_weight():
    """Its bytes, read as float8, against 2^x: exact at whole x, else a line between them and a rounding."""
    x = torch.linspace(-6, 8, 14 * 64 + 1, dtype=torch.float64)
    top = torch.tensor([8.0], dtype=torch.float64)
    exact, found = (x - 1).exp2(), weights_of(torch.cat((x, top)))[:-1]  # the largest is 2^7
    normal = exact >= 2**-6
    whole = normal & (x == x.round())
    assert torch.equal(found[whole], exact[whole])
    assert ((found - exact) / exact)[normal].abs().max() < 0.0861 + 2**-4


def expected(queries_keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention in float64 with the weights as the kernel rounds them."""
    query, key = queries_keys.double().permute(1, 2, 0, 3)
    weights = weights_of(query @ key.mT)
    return (weights @ values.double().transpose(0, 1) / weights.sum(-1, keepdim=True)).transpose(0, 1)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The source compiled for a CPU, for each dtype; g++ takes 10 s for one on a single core."""
    dtypes = hopper_float8.DTYPES
    folders = [tmp_path_factory.mktemp("program") for _ in dtypes]
    with ThreadPoolExecutor() as pool:
        return dict(zip(dtypes, pool.map(hopper_on_a_cpu.compiled, dtypes, folders), strict=True))


@pytest.mark.slow
@pytest.mark.skipif(hopper_on_a_cpu.COMPILER is None, reason="needs g++")
@DTYPES
def test_the_source_on_a_cpu(programs, dtype):
    program = programs[dtype]
    for tokens, heads, spread in ((65, 2, 0.5), (300, 1, 1.5)):
        queries_keys = (spread * torch.randn(tokens, 2, heads, 64)).to(dtype)
        values = (torch.randn(tokens, heads, 64) + 1).to(FLOAT8)
        out = hopper_on_a_cpu.run(program, queries_keys, stored(values.float()).to(FLOAT8))
        assert relative_error(out, expected(queries_keys, values)) < 0.01


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_against_float64_on_the_same_operands(tokens, heads, spread, dtype):
    """With the weights as they are rounded; float16 keeps 11 bits of logits that are sums of 64 products."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    queries_keys = (spread * torch.randn(tokens, 2, heads, 64, device="cuda")).to(dtype)
    values = (torch.randn(tokens, heads, 64, device="cuda") + 1).to(FLOAT8)
    operands = queries_keys, stored(values.float()).to(FLOAT8)
    outputs = [hopper_float8.launch(*operands) for _ in range(2)]
    # Logits of 32 to 64 are rounded to steps of 1/32.
    assert relative_error(outputs[0], expected(queries_keys, values)) < (0.01 if spread < 1 else 0.03)
    assert torch.equal(*outputs)
