"""What a run that trains low-rank weights is configured with; read and checked like the other trainers' settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from kandinsky.training.settings import AdamSettings, AdversarialSettings, at_least, check_installed

TARGETS = (
    "self_attention.to_query_key_value",
    "self_attention.output_layer",
    "feed_forward.in_layer",
    "feed_forward.out_layer",
)
"""Ends of the names of the Linears that get low-rank weights, if nobody says others: those of the blocks."""
CHOICES: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {"objective": ("ladd", "velocity"), "base_precision": ("bf16", "float8")}
)


@dataclass(frozen=True, kw_only=True)
class LoraSettings(AdversarialSettings):
    """Low-rank weights for a DiT that already makes videos in few steps.

    Args:
        base: DiT weights, `.pt` or `.safetensors`; they stay as they are.
        objective: "ladd", adversarial, with the base as its own teacher; or "velocity", plain v-prediction at the
            student's timesteps.
        initial: low-rank weights to begin with, of the same rank and Linears, as `read_lora` reads them; None begins
            as no change.
        rank: of the low-rank weights.
        alpha: they are multiplied by alpha / rank; None is the rank.
        targets: ends of the names of the Linears that get them.
        dropout: share of a layer's inputs that its low-rank weights do not see in a step.
        base_precision: "bf16" (float32 with another `mixed_precision`) or "float8", half the memory of the Linears
            that get low-rank weights.
        keep: text file with a caption in each line: videos of these are to stay as the base makes them.
        keep_weight: of the squared change of the velocity there.
    """

    base: Path
    objective: str = "ladd"
    initial: Path | None = None
    rank: int = 32
    alpha: float | None = None
    targets: tuple[str, ...] = TARGETS
    dropout: float = 0.0
    base_precision: str = "bf16"
    keep: Path | None = None
    keep_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("rank", self.rank, 1)
        at_least("keep_weight", self.keep_weight, 0)
        for name, allowed in CHOICES.items():
            if (given := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={given!r}: allowed are {', '.join(map(repr, allowed))}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: allowed is 0 up to, but not, 1")
        if not self.targets:
            raise ValueError("targets=(): allowed are ends of names of Linears, one or more")
        if self.fsdp:
            raise ValueError("fsdp=True: allowed is False, the base is on each GPU")
        check_installed("low-rank training", "peft", "lora")

    @property
    def smallest_batch(self) -> int:
        return 2 if self.objective == "ladd" else 1

    def groups(self) -> dict[str, AdamSettings]:
        adversarial = {"heads": self.heads} if self.objective == "ladd" else {}
        return {"student": self.optimiser, **adversarial}
