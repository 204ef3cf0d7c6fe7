"""Every Triton kernel compiles for every card that users have, and fits there; `pytest -m slow`, on Linux.

python tests/test_targets.py     # prints the table of docs/gpus.md
"""

import sys

import pytest

CAPABILITIES = (80, 86, 89, 90, 100, 120)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler is there on Linux only"),
]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_fits(capability):
    """Shared memory and registers are there, and hardly anything spills."""
    from triton_targets import REGISTERS, SHARED, SPILLED, kernels_of_ours, use_on

    for kernel in kernels_of_ours():
        if kernel.capability > capability:
            continue
        use = use_on(kernel, capability)
        assert use.shared <= SHARED[capability] * 1024, kernel.name
        assert use.registers * kernel.warps * 32 <= REGISTERS, kernel.name
        assert use.spilled <= SPILLED, kernel.name


def test_every_kernel_is_looked_at():
    """A `triton.jit` function with a grid of its own is in the list."""
    from triton.runtime.jit import JITFunction
    from triton_targets import kernels_of_ours

    from kandinsky.model import kernels, triton_attention
    from kandinsky.vae import kernels as vae_kernels

    helpers = {"_store_row", "_exp2", "_step", "_stored_row"}
    found = {
        name
        for module in (kernels, triton_attention, vae_kernels)
        for name, value in vars(module).items()
        if isinstance(value, JITFunction) and value.__module__ == module.__name__
    }
    assert found - helpers == {kernel.function.__name__ for kernel in kernels_of_ours()}


def table() -> None:
    from triton_targets import kernels_of_ours, use_on

    for kernel in kernels_of_ours():
        cells = []
        for capability in CAPABILITIES:
            if kernel.capability > capability:
                cells.append("-")
                continue
            use = use_on(kernel, capability)
            cells.append(f"{use.shared / 1024:.0f} KB, {use.registers}" + (f", {use.spilled} B" * bool(use.spilled)))
        print(f"| {kernel.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    table()
