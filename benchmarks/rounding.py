"""What tensor parallelism's sums cost in exactness, and what rounding less often would gain: one process, on a CPU.

    python benchmarks/rounding.py [--seeds 3]

A DiT of random weights (model_dim 512, 16 blocks) makes four steps in bfloat16. The Linears that two ranks would sum
are computed as the two would: each half of the inputs by itself, the halves rounded to bfloat16 before they are added
(`as sent`); a rank's own half left in float32, for the rows that it adds up (`own half in float32`); nothing rounded
but the sum (`both halves in float32`, twice the bytes to send). Beside them, another attention backend. Figures are
relative differences of the final latents from those of the plain run, and of that from float32.
"""

import argparse
import statistics

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.config import DiTConfig
from kandinsky.model.attention import TORCH, Attention, torch_sdpa

CONFIG = DiTConfig(
    in_visual_dim=16,
    in_text_dim=128,
    out_visual_dim=16,
    time_dim=64,
    patch_size=(1, 2, 2),
    model_dim=512,
    ff_dim=2048,
    num_blocks=8,
    axes_dims=(16, 24, 24),
)
GRID, TEXT_TOKENS = (5, 12, 16), 32
TIMES = (999, 749, 499, 249)


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


def latents(seed: int, dtype: torch.dtype, *, attention: Attention = TORCH, sums: str | None = None) -> Tensor:
    """After four steps."""
    dit = random_dit(CONFIG, torch.Generator().manual_seed(seed), dtype=dtype)
    dit.attention = attention
    if sums is not None:
        for block in dit.blocks:
            block.self_attention.output_layer = Halves(block.self_attention.output_layer, sums)
            block.feed_forward.out_layer = Halves(block.feed_forward.out_layer, sums)
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(*GRID, 16, generator=generator)
    text = torch.randn(TEXT_TOKENS, CONFIG.in_text_dim, generator=generator).to(dtype)
    modulation = dit.modulation(torch.tensor(TIMES)[:, None])
    context = dit.prepare(text, modulation, dit.layout(GRID, TEXT_TOKENS))
    for index in range(len(TIMES)):
        x = x - dit.step(x.to(dtype), context, index).float() / len(TIMES)
    return x


@torch.inference_mode()
def differences(seed: int) -> dict[str, float]:
    """Of one draw of weights and noise."""
    plain = latents(seed, torch.bfloat16)
    others = {
        "another attention backend": latents(seed, torch.bfloat16, attention=Attention("math", math_sdpa)),
        "as sent": latents(seed, torch.bfloat16, sums="sent"),
        "own half in float32": latents(seed, torch.bfloat16, sums="own"),
        "both halves in float32": latents(seed, torch.bfloat16, sums="float32"),
        "float32": latents(seed, torch.float32),
    }
    return {name: ((other - plain).norm() / plain.norm()).item() for name, other in others.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    found = [differences(seed) for seed in range(parser.parse_args().seeds)]
    for name in found[0]:
        values = [each[name] for each in found]
        print(f"{name:>26}: {statistics.mean(values):.5f}  ({', '.join(f'{value:.5f}' for value in values)})")


if __name__ == "__main__":
    main()
