"""What a training run is configured with: frozen dataclasses, read strictly from one YAML file.

    python -m kandinsky.training.ladd config.yaml [--steps N] [--max-seconds N] [--output FOLDER]

Nothing here trains; every number is checked where it is built. A path in the file is relative to the current
folder, and `~` is the home folder.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from kandinsky.config import DiTConfig
from kandinsky.training.levels import LogitNormal, StepWeights
from kandinsky.user_files.lines import read_yaml
from kandinsky.user_files.paths import path_argument, user_path

S = TypeVar("S", bound="RunSettings")


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """AdamW (arXiv 1711.05101).

    Args:
        learning_rate: after `warmup` steps of linear increase, and until the run's last `cooldown` steps, over which it
            falls linearly to 0.
        max_norm: gradients are scaled down to it.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    warmup: int = 100
    cooldown: int = 0
    max_norm: float = 1.0

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step number `step`, counted from 0, of a run of `steps`."""
        rising, falling = (step + 1) / max(self.warmup, 1), (steps - step) / max(self.cooldown, 1)
        return self.learning_rate * min(1.0, rising, falling)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all trainers share.

    Args:
        weights: folder of the model set: scheduler, and VAE where samples are drawn.
        data: folder of shards; see `encode`.
        output: folder for checkpoints, samples and the log.
        steps: of the whole run.
        batch_size: clips a step, over all processes; a multiple of their number.
        micro_batch: clips of a process that go through the model at once, whose gradients are added up to those of the
            batch; None is all. The same function with less memory.
        optimiser: of the DiT.
        optimiser_bits: 32, or 8 for Adam's moments in 8 bits (bitsandbytes, on a GPU).
        ema_decay: of the weights that are sampled and published.
        mixed_precision: "bf16"; "tf32" for float32 with TensorFloat-32 products, faster than bf16 where a model is so
            small that starting kernels is what takes time; "no" for float32.
        checkpointing: compute each block again on the way back instead of keeping its activations.
        fsdp: shard parameters and optimiser over the processes (FSDP2).
        cuda_graphs: record forward and backward of each shape of batch once, and replay them; with one process, for
            small models on a GPU. On a CPU it changes nothing.
        log_every, sample_every, save_every: steps; 0 is never. The last step is always saved.
        max_seconds: stop, saved, when the run has taken so long; started again, it goes on.
        sample_prompts: how many captions of the data are sampled.
        resident_data: keep all data on the device, for data as small as the synthetic world's.
        tensorboard: write its files too; needs the extra `training`.
    """

    weights: Path
    data: Path
    output: Path
    steps: int
    batch_size: int
    optimiser: AdamSettings
    micro_batch: int | None = None
    optimiser_bits: int = 32
    ema_decay: float = 0.999
    mixed_precision: str = "bf16"
    checkpointing: bool = False
    fsdp: bool = False
    cuda_graphs: bool = False
    seed: int = 0
    log_every: int = 50
    sample_every: int = 0
    save_every: int = 0
    sample_prompts: int = 4
    max_seconds: float | None = None
    resident_data: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("batch_size", self.batch_size, self.smallest_batch)
        if self.micro_batch is not None:
            at_least("micro_batch", self.micro_batch, 1)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: allowed is 0 up to, but not, 1")
        if self.mixed_precision not in ("bf16", "tf32", "no"):
            raise ValueError(f"mixed_precision={self.mixed_precision!r}: allowed are 'bf16', 'tf32', 'no'")
        if self.cuda_graphs and self.micro_batch is not None:
            raise ValueError("cuda_graphs=True records whole batches; allowed with it is micro_batch=None")
        if self.optimiser_bits not in (32, 8):
            raise ValueError(f"optimiser_bits={self.optimiser_bits}: allowed are 32 and 8")
        if self.optimiser_bits == 8:
            check_installed("optimiser_bits=8", "bitsandbytes", "lora-8bit")
        if self.tensorboard:
            check_installed("tensorboard=True", "tensorboard", "training")

    @property
    def smallest_batch(self) -> int:
        return 1

    @property
    def kept_by_a_run(self) -> tuple[str, ...]:
        """Settings that stay when a run goes on where it stopped; others may be changed."""
        return ("seed", "batch_size", "data")

    def groups(self) -> dict[str, AdamSettings]:
        """Optimiser of each part of the objective, by the prefix of its parameters."""
        return {"student": self.optimiser}


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(RunSettings):
    """v-prediction from scratch, or from `initial`.

    Args:
        dit: sizes of the DiT.
        initial: DiT weights to begin with.
        levels: of the timesteps; uniform over all if None.
    """

    dit: DiTConfig
    initial: Path | None = None
    levels: LogitNormal | None = None

    @property
    def kept_by_a_run(self) -> tuple[str, ...]:
        return (*super().kept_by_a_run, "initial")


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings(RunSettings):
    """What LADD of all weights, and of low-rank ones, share.

    Args:
        heads: optimiser of the discriminator's heads.
        heads_every: of so many global blocks one has a head; more takes less memory.
        student_levels: how often each of the student's timesteps is drawn; their number is the student's steps.
        discriminator_levels: of the noise under which real and fake are compared.
        r1_weight: of the approximate R1 penalty; 0 is none.
        r1_distance: standard deviation of the noise by which real latents are moved for it.
        known_share: of the clips, from 0 to 1, of which the student is given a part; see `known_frames`.
    """

    heads: AdamSettings
    heads_every: int = 1
    student_levels: StepWeights = field(default_factory=lambda: StepWeights(weights=(1.0, 1.0, 1.0, 1.0)))
    discriminator_levels: LogitNormal = field(default_factory=lambda: LogitNormal(mean=0.0, std=1.0))
    r1_weight: float = 0.0
    r1_distance: float = 0.05
    known_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r1_weight < 0 or self.r1_distance <= 0:
            raise ValueError(f"r1_weight={self.r1_weight}, r1_distance={self.r1_distance}: allowed are >= 0 and > 0")
        at_least("heads_every", self.heads_every, 1)
        if not 0 <= self.known_share <= 1:
            raise ValueError(f"known_share={self.known_share}: allowed is 0 to 1")

    @property
    def smallest_batch(self) -> int:
        return 2  # hinge loss with a batch of 1 collapses

    def groups(self) -> dict[str, AdamSettings]:
        return {"student": self.optimiser, "heads": self.heads}


@dataclass(frozen=True, kw_only=True)
class LaddSettings(AdversarialSettings):
    """Adversarial distillation.

    Args:
        teacher: DiT weights, `.pt` or `.safetensors`.
        initial: DiT weights that the student begins with; the teacher's if None.
    """

    teacher: Path
    initial: Path | None = None

    @property
    def kept_by_a_run(self) -> tuple[str, ...]:
        return (*super().kept_by_a_run, "initial")


def check_installed(what: str, package: str, extra: str) -> None:
    """Refuse a setting whose package is not installed.

    Raises:
        ValueError: it is not; the message has the command that installs it.
    """
    if find_spec(package) is None:
        raise ValueError(f"{what} needs a package: pip install 'kandinsky4[{extra}]'")


def at_least(name: str, value: float, least: int) -> None:
    """Refuse a smaller number."""
    if not value >= least:  # nor what is no number
        raise ValueError(f"{name}={value}: allowed is {least} and more")


def read_settings(kind: type[S], arguments: Sequence[str]) -> S:
    """Settings from the command line: a YAML file, and what is to be other than in it.

    Raises:
        ValueError: the file is no text or not YAML; a key is unknown, missing, or its value is not what it may be.
        OSError: there is no such file.
    """
    parser = argparse.ArgumentParser(description=kind.__doc__)
    parser.add_argument("config", type=path_argument, help="YAML file")
    parser.add_argument("--steps", type=int, help="instead of the file's")
    parser.add_argument("--max-seconds", type=float, help="instead of the file's")
    parser.add_argument("--output", type=path_argument, help="instead of the file's")
    parsed = parser.parse_args(arguments)
    settings = build(kind, read_yaml(parsed.config), where=str(parsed.config))
    given = {
        name: getattr(parsed, name) for name in ("steps", "max_seconds", "output") if getattr(parsed, name) is not None
    }
    return replace(settings, **given)


def settings_or_exit(kind: type[S], arguments: Sequence[str]) -> S:
    """As `read_settings`, for a command: what is wrong is told without a traceback, and ends the process with 2."""
    try:
        return read_settings(kind, arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def build(kind: type, values: Any, *, where: str) -> Any:
    """A dataclass from a mapping, and its dataclasses from theirs; `where` begins messages.

    Raises:
        ValueError: see `read_settings`.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping, found {values!r}")
    hints, known = get_type_hints(kind), {each.name: each for each in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown {unknown[0]!r}; allowed are {', '.join(known)}")
    needed = [n for n, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(f"{where}: {missing[0]!r} is missing")
    parts = {name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """One value as its annotation says."""
    options: tuple[Any, ...] = getattr(hint, "__args__", ())
    if type(None) in options:
        return None if value is None else _value(next(each for each in options if each is not type(None)), value, where)
    if is_dataclass(hint):
        return build(hint, value, where=where)  # type: ignore[arg-type]
    if getattr(hint, "__origin__", None) is tuple and isinstance(value, list):
        return tuple(_value(options[0], each, where) for each in value)
    if hint is Path and isinstance(value, str):
        return user_path(value, where)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(value)  # YAML reads 1e-4 as text
    elif isinstance(hint, type) and isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise ValueError(f"{where}={value!r}: allowed is {getattr(hint, '__name__', hint)}")
