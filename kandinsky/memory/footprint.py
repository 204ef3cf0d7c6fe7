"""How much memory each component needs, from the shapes in its checkpoint: nothing is loaded.

What a stage needs besides weights is not a formula: the stage's own code runs on PyTorch's meta device, where tensors
have sizes and no memory, and `Live` adds up those that are alive. Fused kernels and convolutions, which allocate other
things on a GPU than on the meta device, are stood in for by what they allocate there.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kandinsky.config import DiTConfig
from kandinsky.memory.meta_sizes import CONVOLUTIONS, result_of
from kandinsky.model.attention import Attention
from kandinsky.model.context import ModulationTable
from kandinsky.model.dit import DiT
from kandinsky.model.operations import Operations
from kandinsky.sampler import Schedule, sample
from kandinsky.vae.activation import Activation
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.decoder_weights import DecoderConfig, NormWeights
from kandinsky.vae.halos import HostHalos
from kandinsky.vae.rows import WHOLE, Rows
from kandinsky.vae.stream import decode
from kandinsky.video_shape import VideoShape

META = torch.device("meta")
LIBRARY_BYTES = 64 * 2**20
"""Workspaces of the matrix libraries, which PyTorch's allocator counts too."""
_UNCOUNTED = (torch.ops.aten.convolution.default, *CONVOLUTIONS)
STATISTICS_PROGRAMS = 2112
"""Rows of partial sums of the VAE's statistics kernel (`vae.kernels.PROGRAMS`; that module needs Triton)."""


@dataclass(frozen=True)
class Component:
    """Bytes of one component.

    Args:
        blocks: of each part that can come and go, in the order in which they run.
        kept: what stays on the device in every mode.
        working: most that its stage needs besides weights.
        loading: what a resident one has on the device besides, until it is loaded: weights before they are quantised,
            and those that are not needed any more.
        in_file: whether the file has the blocks as they are computed with, so that they can be read from there.
    """

    blocks: tuple[int, ...]
    kept: int
    working: int
    loading: int = 0
    in_file: bool = True

    def weights(self, slots: int | None) -> int:
        """On the device while it is used, with so many blocks there at once (None: all)."""
        if slots is None or slots >= len(self.blocks):
            return self.kept + sum(self.blocks)
        return self.kept + slots * max(self.blocks)


class Live(TorchDispatchMode):
    """Counts the bytes of tensors on the meta device that are alive; `peak` is the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch would import its compiler to keep it away from here."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = result_of(func, args, kwargs or {})
        if func in _UNCOUNTED:
            return result  # a GPU writes it to where it is copied to here
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, nbytes: int) -> None:
        self.now -= nbytes


def peak_of(run: Callable[[], object]) -> int:
    """Bytes that `run`, on the meta device, has alive at most."""
    with torch.inference_mode(), Live() as live:
        run()
    return live.peak


class _Product(nn.Module):
    """Stands for a block's Linear: allocates its result, and in float8 the quantised input where it is none yet."""

    def __init__(self, out_features: int, dtype: torch.dtype, *, quantise: bool):
        super().__init__()
        self.out_features, self.dtype, self.quantise = out_features, dtype, quantise

    def forward(self, x: Tensor) -> Tensor:
        _rows = torch.empty_like(x, dtype=torch.uint8) if self.quantise and x.dtype != torch.uint8 else x
        return x.new_empty(len(x), self.out_features, dtype=self.dtype)


def _sized_operations(*, quantise: bool) -> Operations:
    """What the fused kernels allocate; float8 is counted as uint8."""

    def result(x: Tensor) -> Tensor:
        return torch.empty_like(x, dtype=torch.uint8) if quantise else torch.empty_like(x)

    def add_norm(tokens: Tensor, residual: object, *_terms: object) -> tuple[Tensor, Tensor]:
        return (tokens if residual is None else torch.empty_like(tokens)), result(tokens)

    return Operations("sized", add_norm, lambda qkv, *_terms: qkv, result)


def dit_component(
    config: DiTConfig,
    shape: VideoShape,
    *,
    text_tokens: int,
    dtype: torch.dtype,
    quantise: bool,
    quantised_file: bool = False,
) -> Component:
    """The DiT: its blocks without their modulation layers; the modulation table of a schedule's steps is kept.

    Args:
        quantise: its Linears run in float8.
        quantised_file: they are float8 in the checkpoint.
    """
    with torch.device("meta"):
        dit = DiT(replace(config, num_blocks=1)).to(dtype)  # one pair: later ones have nothing new
    block = 0
    for name, value in dit.blocks[0].named_parameters():
        linear = value.ndim == 2
        if "modulation" not in name:
            block += value.numel() if linear and quantise else value.nbytes
            block += 4 * value.shape[0] if linear and quantise else 0
    whole = sum(value.nbytes for value in dit.blocks[0].parameters())  # with the modulation, and before it is float8
    if quantised_file:
        whole = block + sum(value.nbytes for name, value in dit.blocks[0].named_parameters() if "modulation" in name)
    rest = sum(value.nbytes for name, value in dit.named_parameters() if not name.startswith("transformer_blocks"))
    schedule = Schedule((999, 749, 499, 249), (0.0, 0.25, 0.5, 0.75))  # the count matters, and not zero twice
    table = 2 * config.num_blocks * len(schedule.timesteps) * 2 * 6 * config.model_dim * dtype.itemsize
    dit.operations = _sized_operations(quantise=quantise)
    dit.attention = Attention("sized", lambda qkv: qkv.new_empty(qkv.shape[0], *qkv.shape[2:]))
    for block_module in dit.blocks:
        for part in (block_module.self_attention, block_module.feed_forward):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, _Product(child.out_features, dtype, quantise=quantise))
    steps, width = len(schedule.timesteps), config.model_dim
    with torch.inference_mode():  # of one pair of blocks; two segments, and one of them in the last norm
        blocks, out = torch.empty(steps, 2, 2, 6, width, device=META), torch.empty(steps, 1, 2, width, device=META)
    modulation = ModulationTable(blocks.to(dtype), out.to(dtype))

    def run() -> None:
        text = torch.empty(text_tokens, config.in_text_dim, dtype=dtype, device=META)
        context = dit.prepare(text, modulation, dit.layout(shape.latent_grid, text_tokens))
        sample(
            lambda latents, index: dit.step(latents.to(dtype), context, index),
            (*shape.latent_grid, config.in_visual_dim),
            replace(schedule, timesteps=schedule.timesteps[:2], alphas_cumprod=schedule.alphas_cumprod[:2]),
            generator=torch.Generator().manual_seed(0),
            device=META,
        )

    count = 2 * config.num_blocks
    return Component((block,) * count, rest + table, peak_of(run) + LIBRARY_BYTES, loading=(whole - block) * count)


def t5_component(
    shapes: Mapping[str, tuple[int, ...]], *, text_tokens: int, dtype: torch.dtype, int8: bool = False
) -> Component:
    """T5's blocks, from the shapes in its checkpoint; its embedding stays on the host."""
    parts: dict[str, int] = defaultdict(int)
    kept = heads = feed_forward = largest = loading = 0
    for name, shape in shapes.items():
        numel = torch.Size(shape).numel()
        if "final_layer_norm" in name:
            kept += numel * dtype.itemsize
        if ".block." not in name:
            continue
        linear = len(shape) == 2 and "relative_attention_bias" not in name
        size = numel + 4 * shape[0] if linear and int8 else numel * dtype.itemsize
        parts[".".join(name.split(".")[:3])] += size
        loading += numel * dtype.itemsize - size
        heads = shape[1] if "relative_attention_bias" in name else heads
        feed_forward = max(feed_forward, shape[0]) if linear else feed_forward
        largest = max(largest, numel * dtype.itemsize) if linear and int8 else largest  # as it is multiplied with
    blocks = tuple(parts.values())
    # The position bias lives throughout; beside it logits and their softmax, or the feed-forward's hidden layer.
    working = 3 * heads * text_tokens**2 * dtype.itemsize + 4 * text_tokens * feed_forward * dtype.itemsize
    return Component(blocks, kept, working + largest + LIBRARY_BYTES, loading=loading)


@dataclass(frozen=True)
class _SizedOps:
    """`vae.norm.Ops` that allocates what its Triton form does."""

    rows: Rows = WHOLE

    def statistics(self, x: Activation, norm: NormWeights) -> Tensor:  # noqa: ARG002
        _partial = x.data.new_empty(STATISTICS_PROGRAMS, 2, x.channels, dtype=torch.float32)
        return x.data.new_empty(2, x.channels, dtype=torch.float32)

    def normalise(
        self,
        x: Activation,
        coefficients: Tensor,
        latent: Tensor,
        *,
        start: int,
        out: Tensor,
        scale: Tensor | None = None,
    ) -> None:
        """Writes to `out` only."""

    def add(self, x: Activation, residual: Activation, bias: Tensor, norm: NormWeights | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return x.data, self.statistics(x, norm) if norm is not None else x.data.new_empty(0)


def vae_component(
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    shape: VideoShape,
    *,
    dtype: torch.dtype,
    memory_saving: bool,
) -> Component:
    """The VAE's decoder as it is rearranged at load; the encoder stays on the host."""
    frozen = tuple((name, size) for name, size in shapes.items() if name.startswith("decoder."))
    decoder_config = DecoderConfig.from_mapping(config)
    grid = (min(shape.latent_frames, 5), shape.latent_height, shape.latent_width)  # the memory of longer ones is equal
    weights, working = _decoder_bytes(decoder_config, frozen, grid, dtype, memory_saving)
    return Component((weights,), 0, working + LIBRARY_BYTES)


@cache
def _decoder_bytes(
    config: DecoderConfig,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    grid: tuple[int, int, int],
    dtype: torch.dtype,
    memory_saving: bool,
) -> tuple[int, int]:
    """Of the weights, and of what decoding needs besides."""
    with torch.inference_mode(), Live() as built:
        state = {name.removeprefix("decoder."): torch.empty(size, dtype=dtype, device=META) for name, size in shapes}
        decoder = CausalDecoder(state, config, ops=_SizedOps())
        del state
    halos = 0

    def run() -> None:
        nonlocal halos
        latents = torch.empty(*grid, config.latent_channels, dtype=torch.float32, device=META)
        clip = decoder.open_clip(latents.to(dtype), memory_saving=memory_saving)
        halos = clip.halos.nbytes if isinstance(clip.halos, HostHalos) else 0  # these are on the host
        del clip
        for _ in islice(decode(decoder, latents, memory_saving=memory_saving), 2):
            pass

    return built.now, peak_of(run) - halos
