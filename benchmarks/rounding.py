"""What tensor parallelism's sums cost in exactness, and what rounding less often would gain: one process, on a CPU.

    python benchmarks/rounding.py [--seeds 3]
    python benchmarks/rounding.py --size tiny --device cpu      # to try the benchmark itself

A DiT of random weights (model_dim 512, 16 blocks) makes four steps in bfloat16. The Linears that two ranks would sum
are computed as the two would: each half of the inputs by itself, the halves rounded to bfloat16 before they are added
(`as sent`); a rank's own half left in float32, for the rows that it adds up (`own half in float32`); nothing rounded
but the sum (`both halves in float32`, twice the bytes to send). Beside them, another attention backend. Figures are
relative differences of the final latents from those of the plain run, and, as their limit, of that from float32: what
bfloat16 costs anyway. Nothing is timed. The last line is JSON.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from script import device_in, finish, machine, parser_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.config import DiTConfig
from kandinsky.model.attention import TORCH, Attention, torch_sdpa

TIMES = (999, 749, 499, 249)
LIMIT = "float32"


@dataclass(frozen=True)
class Case:
    """Sizes of a DiT and of what it makes.

    Args:
        model_dim, blocks: of the DiT; blocks in pairs.
        grid: of the latents, `[T, H, W]`.
        seeds: draws of weights and noise.
    """

    model_dim: int
    blocks: int
    grid: tuple[int, int, int]
    seeds: int

    @property
    def config(self) -> DiTConfig:
        return DiTConfig(
            in_visual_dim=16,
            in_text_dim=128,
            out_visual_dim=16,
            time_dim=64,
            patch_size=(1, 2, 2),
            model_dim=self.model_dim,
            ff_dim=4 * self.model_dim,
            num_blocks=self.blocks // 2,
            axes_dims=(16, 24, 24),
        )


CASES = {"full": Case(512, 16, (5, 12, 16), 3), "tiny": Case(128, 2, (1, 4, 4), 1)}
TEXT_TOKENS = 32


class Halves(nn.Module):
    """A Linear as two ranks compute it. `sums`: "sent", "own" or "float32"."""

    def __init__(self, linear: nn.Linear, sums: str):
        super().__init__()
        self.linear, self.sums = linear, sums

    def forward(self, x: Tensor) -> Tensor:
        half = self.linear.in_features // 2
        weight = self.linear.weight.float()
        one = x[:, :half].float() @ weight[:, :half].T + self.linear.bias.float()
        other = x[:, half:].float() @ weight[:, half:].T
        if self.sums == "float32":
            return (one + other).type_as(x)
        one_sent, other_sent = one.type_as(x), other.type_as(x)
        if self.sums == "sent":
            return one_sent + other_sent
        rows = len(x) // 2  # the first rank adds up these, the second one the others
        return torch.cat((one[:rows] + other_sent[:rows], one_sent[rows:] + other[rows:])).type_as(x)


def math_sdpa(qkv: Tensor) -> Tensor:
    """PyTorch's attention that keeps the logits."""
    with sdpa_kernel(SDPBackend.MATH):
        return torch_sdpa(qkv)


def latents(
    case: Case, seed: int, dtype: torch.dtype, *, attention: Attention = TORCH, sums: str | None = None
) -> Tensor:
    """After four steps."""
    config = case.config
    dit = random_dit(config, torch.Generator().manual_seed(seed), dtype=dtype)
    dit.attention = attention
    if sums is not None:
        for block in dit.blocks:
            for name in ("self_attention.output_layer", "feed_forward.out_layer"):
                linear = block.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                block.set_submodule(name, Halves(linear, sums))
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(*case.grid, config.in_visual_dim, generator=generator)
    text = torch.randn(TEXT_TOKENS, config.in_text_dim, generator=generator).to(dtype)
    modulation = dit.modulation(torch.tensor(TIMES)[:, None])
    context = dit.prepare(text, modulation, dit.layout(case.grid, TEXT_TOKENS))
    for index in range(len(TIMES)):
        x = x - dit.step(x.to(dtype), context, index).float() / len(TIMES)
    return x


@torch.inference_mode()
def differences(case: Case, seed: int) -> dict[str, float]:
    """Of one draw of weights and noise."""
    plain = latents(case, seed, torch.bfloat16)
    others = {
        "another attention backend": latents(case, seed, torch.bfloat16, attention=Attention("math", math_sdpa)),
        "as sent": latents(case, seed, torch.bfloat16, sums="sent"),
        "own half in float32": latents(case, seed, torch.bfloat16, sums="own"),
        "both halves in float32": latents(case, seed, torch.bfloat16, sums="float32"),
        LIMIT: latents(case, seed, torch.float32),
    }
    return {name: ((other - plain).norm() / plain.norm()).item() for name, other in others.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu",))
    parser.add_argument("--seeds", type=int, help="draws of weights and noise (default: 3, at tiny size 1)")
    given = parser.parse_args(arguments)
    case = CASES[given.size]
    found = [differences(case, seed) for seed in range(given.seeds or case.seeds)]
    means = {name: statistics.mean(each[name] for each in found) for name in found[0]}
    for name, mean in means.items():
        print(f"{name:>26}: {mean:.5f}  ({', '.join(f'{each[name]:.5f}' for each in found)})")
    limit = means.pop(LIMIT)
    finish({**machine(device_in(given)), "size": given.size, "seeds": len(found), "rows": means, "limit": limit}, given)


if __name__ == "__main__":
    main()
