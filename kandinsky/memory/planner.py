"""Which memory mode fits: a pure function of free memory and of what each component needs.

`plan` tries the modes from the fastest to the smallest and takes the first whose every stage fits on the GPU and whose
pinned weights fit in host memory. The sizes come from `footprint`, so from checkpoints and the code itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from kandinsky.config import FLASH_512, ModelSet
from kandinsky.errors import NothingFits
from kandinsky.memory.footprint import LIBRARY_BYTES, Component
from kandinsky.memory.modes import BLOCKS, DISK, RESIDENT, STAGED, Mode
from kandinsky.memory.ring import RING_BYTES
from kandinsky.model.precision import PRECISIONS, Precision
from kandinsky.video_shape import VideoShape

STAGES = {"text": "text_embedder", "sample": "dit", "decode": "vae"}
"""The component that works in each stage."""
MARGIN = 0.1
"""Of the GPU's free memory, for what the allocator holds in pieces too small to be used."""
HOST_RESERVE = 2 * 10**9
"""Bytes of host memory that loading and the program itself take."""
LADDER: Mapping[str, Mapping[str, Mode]] = MappingProxyType(
    {
        "resident": {"text_embedder": RESIDENT, "dit": RESIDENT, "vae": RESIDENT},
        "resident, T5 in blocks": {"text_embedder": BLOCKS, "dit": RESIDENT, "vae": RESIDENT},
        "resident, T5 from disk": {"text_embedder": DISK, "dit": RESIDENT, "vae": RESIDENT},
        "staged, T5 in blocks": {"text_embedder": BLOCKS, "dit": STAGED, "vae": STAGED},
        "blocks": {"text_embedder": BLOCKS, "dit": BLOCKS, "vae": STAGED},
        "blocks, T5 from disk": {"text_embedder": DISK, "dit": BLOCKS, "vae": STAGED},
        "disk": {"text_embedder": DISK, "dit": DISK, "vae": STAGED},
    }
)
"""Modes from the fastest to the smallest. T5 takes as long in blocks as staged: both times its copy is what is long."""


@dataclass(frozen=True)
class Needs:
    """Components on one GPU by name, `vae_saving` for decoding with the least memory."""

    components: Mapping[str, Component]
    vae_saving: Component | None = None

    def component(self, name: str, *, saving: bool) -> Component:
        if name == "vae" and saving and self.vae_saving is not None:
            return self.vae_saving
        return self.components[name]


@dataclass(frozen=True)
class Plan:
    """What to do, and what it takes.

    Args:
        name: of the modes, in a few words.
        modes: of each component.
        memory_saving: whether the VAE decodes with the least memory.
        peaks: bytes on the GPU in each stage, and to load.
        host: bytes of pinned host memory.
        reason: one sentence.
    """

    name: str
    modes: Mapping[str, Mode]
    memory_saving: bool
    peaks: Mapping[str, int]
    host: int
    reason: str

    @property
    def peak(self) -> int:
        """Bytes on the GPU at most."""
        return max(self.peaks.values())


def outcome(needs: Needs, modes: Mapping[str, Mode], *, memory_saving: bool) -> Plan:
    """What some modes take, whether they fit or not."""
    base = host = loading = 0
    for name in needs.components:
        component = needs.component(name, saving=memory_saving)
        base += component.weights(None) if modes[name].stays else component.kept
        host += 0 if modes[name].stays else _pinned(component, modes[name])
        loading += component.loading if modes[name].stays else 0
    peaks = {"load": base + loading + LIBRARY_BYTES}
    for stage, name in STAGES.items():
        if name in needs.components:
            component = needs.component(name, saving=memory_saving)
            extra = 0 if modes[name].stays else component.weights(modes[name].slots) - component.kept
            peaks[stage] = base + extra + component.working
    if "text" in peaks:  # the first prompt may be encoded meanwhile
        peaks["load"] = peaks["text"] + loading
    name = next((name for name, others in LADDER.items() if others == modes), "mixed")
    name += ", saving decode" if memory_saving else ""
    return Plan(name, {name: modes[name] for name in needs.components}, memory_saving, peaks, host, reason="")


def _pinned(component: Component, mode: Mode) -> int:
    return min(RING_BYTES, sum(component.blocks)) if mode.from_file else sum(component.blocks)


def plan(needs: Needs, *, free_gpu: int, free_host: int) -> Plan:
    """The fastest modes that fit.

    Args:
        needs: of the components on this GPU.
        free_gpu, free_host: bytes.

    Raises:
        NothingFits: says by how much the smallest mode is too large.
    """
    room = int(free_gpu * (1 - MARGIN))
    refused: list[str] = []
    for memory_saving in (False, True):
        for modes in LADDER.values():
            candidate = outcome(needs, modes, memory_saving=memory_saving)
            stage = max(candidate.peaks, key=lambda name: candidate.peaks[name])
            converted = [name for name in needs.components if modes[name].from_file]
            if not all(needs.components[name].in_file for name in converted):
                refused.append(f"{candidate.name} needs a file that holds what is computed with (`kandinsky convert`)")
            elif candidate.peak > room:
                refused.append(f"{candidate.name} needs {_gb(candidate.peak)} to {stage}")
            elif candidate.host + HOST_RESERVE > free_host:
                refused.append(f"{candidate.name} needs {_gb(candidate.host + HOST_RESERVE)} of host memory")
            else:
                why = f"{refused[-1]}; " if refused else ""
                reason = f"{why}this needs {_gb(candidate.peak)} of {_gb(free_gpu)} on the GPU"
                return replace(candidate, reason=reason)
    raise NothingFits(
        f"nothing fits in {_gb(free_gpu)} of GPU and {_gb(free_host)} of host memory: {refused[-1]} "
        f"({MARGIN:.0%} of the GPU's memory are kept for fragments)"
    )


def smaller(shape: VideoShape, model_set: ModelSet) -> Iterator[VideoShape]:
    """Requests that need less memory, the nearest first: shorter by halves, at the end an image."""
    seconds = shape.seconds
    while seconds > 0:
        seconds //= 2
        yield VideoShape.from_request(seconds, shape.width, shape.height, model_set=model_set)


def plan_or_nearest(
    needs_of: Callable[[VideoShape, Precision], Needs],
    shape: VideoShape,
    precision: Precision,
    *,
    free_gpu: int,
    free_host: int,
    model_set: ModelSet = FLASH_512,
) -> Plan:
    """`plan`; where nothing fits, the message names the nearest precision or length that does.

    Args:
        needs_of: sizes for a request and a precision.

    Raises:
        NothingFits: nothing fits.
    """
    try:
        return plan(needs_of(shape, precision), free_gpu=free_gpu, free_host=free_host)
    except NothingFits as error:
        others = [other for other in PRECISIONS.values() if precision.is_exact and not other.is_exact]
        shorter = list(smaller(shape, model_set))
        alternatives = [(shape, other) for other in others]
        alternatives += [(other, level) for level in (precision, *others) for other in shorter]
        for other, level in alternatives:
            try:
                found = plan(needs_of(other, level), free_gpu=free_gpu, free_host=free_host)
            except NothingFits:
                continue
            request = f"{other.width}x{other.height}, time_length={other.seconds}, precision={level.name!r}"
            raise NothingFits(f"{error}. What would fit: {request}, with {_gb(found.peak)}") from error
        raise NothingFits(f"{error}. Not even an image fits") from error


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
