"""Every Triton kernel compiles for every card that users have, and fits there; `pytest -m slow`, on Linux.

python tests/test_targets.py     # prints the table of docs/gpus.md
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest
from helpers import fork_server

if TYPE_CHECKING:
    from triton_targets import Use

CAPABILITIES = (80, 86, 89, 90, 100, 120)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler is there on Linux only"),
]


@pytest.fixture(scope="module")
def uses():
    """What each kernel takes on a card; all are compiled at once, by a process for each core."""
    from triton_targets import AMD, kernels_of_ours, use_of

    cards = {card: [kernel.is_for(card) for kernel in kernels_of_ours(card)] for card in CAPABILITIES}
    cards[AMD] = [kernel.on_amd for kernel in kernels_of_ours()]
    pool = ProcessPoolExecutor(os.cpu_count(), mp_context=fork_server())
    yield {
        card: {index: pool.submit(use_of, index, card) for index, needed in enumerate(kernels) if needed}
        for card, kernels in cards.items()
    }
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_fits(uses, capability):
    """Shared memory and registers are there, and hardly anything spills."""
    from triton_targets import REGISTERS, SHARED, SPILLED, kernels_of_ours

    assert uses[capability]
    for index, told in uses[capability].items():
        kernel, use = kernels_of_ours(capability)[index], told.result()
        assert use.shared <= SHARED[capability] * 1024, kernel.name
        assert use.registers * kernel.warps * 32 <= REGISTERS, kernel.name
        assert use.spilled <= SPILLED, kernel.name


def test_norms_are_summed_in_one_order():
    """So that what is behind them has the same bits, whichever kernel made it: Triton gives a thread as many numbers as
    suit what is stored, and sums those first."""
    from triton_targets import kernels_of_ours, sums_on

    kernels = {kernel.name: kernel for kernel in kernels_of_ours(90)}
    names = ("norm_rope", "norm_rope, float16 queries and keys", "norm_rope, float8 queries and keys")
    first, *others = (sums_on(kernels[name], 90) for name in names)
    assert len(first) == 2
    assert others == [first, first]


@pytest.mark.parametrize("heads", [24, 12, 8, 6])
def test_a_rank_with_some_of_the_heads_sums_their_norms_in_the_order_of_all(heads):
    """2 to 8 GPUs, `parallelism="sequence"`: latents are those of one GPU."""
    from dataclasses import replace

    from triton_targets import kernels_of_ours, sums_on

    from kandinsky.model.kernels import blocks

    for kernel in kernels_of_ours(90):
        if kernel.name.startswith("norm_rope"):
            part = replace(kernel, constants={**kernel.constants, **blocks(heads, 64)})
            assert sums_on(part, 90) == sums_on(kernel, 90), kernel.name


def test_what_amd_can_have_fits_there(uses):
    """No kernel of ours is launched on ROCm yet; this is what stands in the way, and what does not."""
    from triton_targets import AMD, AMD_REGISTERS, AMD_SHARED, kernels_of_ours

    assert uses[AMD]
    for index, told in uses[AMD].items():
        kernel, use = kernels_of_ours()[index], told.result()
        assert use.shared <= AMD_SHARED, kernel.name
        assert use.registers <= AMD_REGISTERS, kernel.name
        assert use.spilled == 0, kernel.name


def test_every_kernel_is_looked_at():
    """A `triton.jit` function with a grid of its own is in the list."""
    from triton.runtime.jit import JITFunction
    from triton_targets import kernels_of_ours

    from kandinsky.model import float8_operands, kernels, triton_attention
    from kandinsky.vae import float8_convolution
    from kandinsky.vae import kernels as vae_kernels

    helpers = {"_store_row", "_exp2", "_step", "_stored_row", "normed_and_turned"}
    found = {
        name
        for module in (float8_operands, kernels, triton_attention, vae_kernels, float8_convolution)
        for name, value in vars(module).items()
        if isinstance(value, JITFunction) and value.__module__ == module.__name__
    }
    assert found - helpers == {kernel.function.__name__ for kernel in kernels_of_ours()}


def table() -> None:
    from triton_targets import kernels_of_ours, use_on, use_on_amd

    for index, kernel in enumerate(kernels_of_ours()):
        uses = [
            use_on(kernels_of_ours(capability)[index], capability) if kernel.is_for(capability) else None
            for capability in CAPABILITIES
        ]
        cells = ["-" if use is None else cell(use) for use in (*uses, use_on_amd(kernel) if kernel.on_amd else None)]
        print(f"| {kernel.name} | {' | '.join(cells)} |")


def cell(use: "Use") -> str:
    return f"{use.shared / 1024:.0f} KB, {use.registers}" + (f", {use.spilled} B" * bool(use.spilled))


if __name__ == "__main__":
    table()
