"""Every stage of a request at full size, from nothing but a seed.

    python benchmarks/stages.py [--kernels]
    python benchmarks/stages.py --size tiny --device cpu      # to try the benchmark itself

Random weights of the published sizes are made on the GPU; they cost the same as real ones. For each stage: median time,
spread, TFLOP/s, peak memory. The limit is measured in the same run: the products of a block and the fastest attention,
by themselves; a step's share of it is printed (that of the VAE is in `vae.py`). Then exactness: against a float32
oracle of two full-width blocks, and fast precision against exact on final latents. `--kernels` adds a profile of one
step by kernel. The last line is JSON. Needs one GPU with 60 GB; what needs one is left out on a CPU.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import Timing, attention_table, gemm_ceiling, gib, kernels, measure, peak_gib
from random_parts import PROMPT, WORKLOADS, fast_vae, make_fast_, random_parts
from script import device_in, finish, machine, parser_of
from torch import Tensor

from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.config import DiTConfig
from kandinsky.model.attention import BACKENDS
from kandinsky.model.context import Context
from kandinsky.model.dit import DiT
from kandinsky.model.operations import PLAIN, fused
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.request import request_of
from kandinsky.video_shape import VideoShape

T5_TFLOP, VAE_TFLOP = 2.1, 462
"""Of the full workload."""
OTHER_SIZES = {
    "full": ((12, 512, 512), (5, 736, 352), (0, 512, 512), (1, 544, 480)),
    "tiny": ((1, 32, 32), (0, 48, 32)),
}
"""Seconds, width, height."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        size: "full" or "tiny".
        pipe: of random weights of that size.
        shape: of the video.
    """

    size: str
    pipe: Kandinsky4T2VPipeline
    shape: VideoShape

    @property
    def dit(self) -> DiT:
        return self.pipe.dit

    @property
    def device(self) -> torch.device:
        return self.pipe.dit.device

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def tokens(self) -> int:
        """Of the DiT, text and video together."""
        return self.dit.layout(self.shape.latent_grid, self.pipe.model_set.text_tokens).tokens

    def tflop(self, full: float) -> float:
        """Work of a stage; unknown, 0, but at full size."""
        return full if self.size == "full" else 0.0

    def encode(self) -> Tensor:
        """The prompt's embedding."""
        assert self.pipe.text_encoder is not None
        return self.pipe.text_encoder(PROMPT)

    def decode(self, latents: Tensor) -> list[Tensor]:
        """All frames, on the device."""
        assert self.pipe.vae is not None
        return list(self.pipe.vae.decode(latents))


def step_tflop(c: DiTConfig, tokens: int) -> tuple[float, float]:
    """Linears and attention of one step."""
    linears = 2 * tokens * (4 * c.model_dim**2 + 2 * c.model_dim * c.ff_dim)
    attention = 4 * tokens**2 * c.model_dim
    return 2 * c.num_blocks * linears / 1e12, 2 * c.num_blocks * attention / 1e12


def prepared(case: Case, shape: VideoShape) -> tuple[Tensor, Context]:
    """Latents and context of a step."""
    text, dit = case.encode(), case.dit
    context = dit.prepare(text, case.pipe.parts.modulation, dit.layout(shape.latent_grid, len(text)))
    channels = dit.config.in_visual_dim
    return torch.randn(*shape.latent_grid, channels, device=case.device, dtype=dit.dtype), context


def step_timing(case: Case, shape: VideoShape | None = None, repeats: int = 5) -> Timing:
    latents, context = prepared(case, shape or case.shape)
    tflop = sum(step_tflop(case.dit.config, context.layout.tokens))
    run = {"device": case.device, "tflop": tflop, "repeats": repeats, "warm_up": 1}
    return measure(lambda: case.dit.step(latents, context, 1), **run)


def profile(case: Case) -> dict[str, float]:
    """Milliseconds of one step by kind of kernel; prints the ten kernels that take longest."""
    latents, context = prepared(case, case.shape)
    rows = kernels(lambda: case.dit.step(latents, context, 1), case.device)
    kinds: dict[str, float] = defaultdict(float)
    for kernel in rows:
        name = kernel.name.lower()
        linear = any(mark in name for mark in ("nvjet", "gemm", "cutlass", "xmma", "splitk", "addmm"))
        attention = any(mark in name for mark in ("attend", "flash", "fmha", "sdpa"))
        kinds["linears" if linear else "attention" if attention else "element-wise"] += kernel.milliseconds
    for kernel in rows[:10]:
        print(f"    {kernel.milliseconds:9.2f} ms {kernel.calls:5d} x {kernel.name[:90]}")
    print("  by kind, ms:", {name: round(ms, 1) for name, ms in kinds.items()})
    return dict(kinds)


def block_error(size: str, device: torch.device, seed: int) -> dict[str, float]:
    """Relative error of one full-width pair of blocks at full length against float32."""
    config = replace(SIZES[size].dit, num_blocks=1)
    shape, text_tokens = WORKLOADS[size].shape(), WORKLOADS[size].model_set.text_tokens
    names = ("float32", "plain", "fused", "fast") if device.type == "cuda" else ("float32", "plain")
    models = {name: random_dit(config, torch.Generator(device).manual_seed(seed)) for name in names}
    models["float32"].float()
    if device.type == "cuda":
        models["fused"].operations = fused()
        models["fused"].attention = BACKENDS["bounded"]
        make_fast_(models["fast"])
    visual = torch.randn(*shape.latent_grid, config.in_visual_dim, device=device).bfloat16().float()
    text = torch.randn(text_tokens, config.in_text_dim, device=device).bfloat16().float() * 0.2
    outputs = {name: dit(visual, text, torch.tensor([749], device=device)).float() for name, dit in models.items()}
    expected = outputs.pop("float32")
    errors = {name: ((output - expected).norm() / expected.norm()).item() for name, output in outputs.items()}
    print("error of two full-width blocks against float32:", {name: round(e, 6) for name, e in errors.items()})
    return errors


def dit_gib(dit: DiT) -> float:
    """GiB of the DiT's weights on its device."""
    tensors = (*dit.parameters(), *dit.buffers())
    return sum(x.numel() * x.element_size() for x in tensors if x.device == dit.device) / 2**30


def whole_request(case: Case) -> dict[str, float]:
    """Seconds of the stages of the best of three requests."""
    with tempfile.TemporaryDirectory() as folder:
        request = request_of(
            PROMPT,
            Path(folder) / "v.mp4",
            time_length=case.shape.seconds,
            width=case.shape.width,
            height=case.shape.height,
            seed=42,
            model_set=case.pipe.model_set,
        )
        runs = [case.pipe.run(request)[0] for _ in range(3)]
    best = min(runs, key=lambda run: run.timings["total"])
    print("  request:", {name: round(seconds, 3) for name, seconds in best.timings.items()})
    print("  peak GiB:", {name: round(peak / 2**30, 2) for name, peak in best.peak_memory.items()})
    return dict(best.timings)


def ceilings(case: Case) -> tuple[dict[str, Any], float]:
    """Figures of what a step consists of by itself, and the milliseconds that a step cannot be faster than."""
    config, tokens = case.dit.config, case.tokens
    gemm = gemm_ceiling(tokens, config.model_dim, config.ff_dim, case.device)
    print(f"  products of a block  {gemm}")
    attention = attention_table(tokens, config.model_dim // config.head_dim, case.device)
    for name, (timing, error) in attention.items():
        print(f"  attention {name:10s} {timing}   error {error:.5f}")
    limit = 2 * config.num_blocks * (gemm.median + min(timing.median for timing, _ in attention.values()))
    table = {name: [timing.median, error] for name, (timing, error) in attention.items()}
    return {"gemm_ms": gemm.median, "attention": table, "step_limit_ms": limit}, limit


def text_and_step(case: Case, limit: float, *, by_kernel: bool) -> dict[str, Any]:
    """T5, and a step of the DiT in exact precision, with the chosen kernels and with others."""
    case.encode()
    encode = measure(case.encode, device=case.device, tflop=case.tflop(T5_TFLOP))
    print(f"T5 encode              {encode}")
    started = time.perf_counter()
    step_timing(case, repeats=1)
    print(f"first two steps took {time.perf_counter() - started:.1f} s")
    exact = step_timing(case)
    linears, products = step_tflop(case.dit.config, case.tokens)
    print(f"DiT step, exact        {exact}   {limit / exact.median:.0%} of products and attention alone, "
          f"{linears:.0f} + {products:.0f} TFLOP")  # fmt: skip
    figures: dict[str, Any] = {"t5_ms": encode.median, "step_ms": exact.median}
    if by_kernel:
        figures["profile_ms"] = profile(case)
    return figures | (other_kernels(case) if case.on_gpu else {})


def other_kernels(case: Case) -> dict[str, float]:
    """A step without our attention, and without our element-wise kernels too."""
    dit, figures = case.dit, {}
    chosen = dit.attention
    for name, operations, backend in (("plain, cuDNN", PLAIN, "cudnn"), ("fused, cuDNN", fused(), "cudnn")):
        dit.operations, dit.attention = operations, BACKENDS[backend]
        timing = step_timing(case, repeats=3)
        print(f"DiT step, {name} {timing}")
        figures[f"step_{name}_ms"] = timing.median
    dit.operations, dit.attention = fused(), chosen
    return figures


def sample_and_decode(case: Case, text: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Latents of all steps, and the figures of decoding them."""

    def sample() -> Tensor:
        return case.pipe.sample(text, case.shape, seed=1)

    latents = sample()
    print(f"bit-equal twice: {torch.equal(latents, sample())}")
    print(f"peak of sampling {gib(peak_gib(sample, case.device))}")
    return latents, {"vae_ms": decoding_of(case, latents).median}


def decoding_of(case: Case, latents: Tensor) -> Timing:
    run = {"device": case.device, "tflop": case.tflop(VAE_TFLOP), "repeats": 3, "warm_up": 1}
    decode = measure(lambda: case.decode(latents), **run)
    print(f"VAE decode             {decode}, peak {gib(peak_gib(lambda: case.decode(latents), case.device))}")
    return decode


def other_sizes(case: Case) -> None:
    """Steps of other videos on the kernels that are there."""
    for seconds, width, height in OTHER_SIZES[case.size]:
        shape = VideoShape.from_request(seconds, width, height, model_set=case.pipe.model_set)
        started = time.perf_counter()
        timing = step_timing(case, shape, repeats=3)
        elapsed = time.perf_counter() - started
        print(f"  {width}x{height} {seconds:2d} s: step {timing}, with the first call {elapsed:.2f} s")


def fast_precision(case: Case, text: Tensor, latents: Tensor, *, by_kernel: bool) -> dict[str, Any]:
    """The same step, decoding and request in float8; the DiT stays so."""
    make_fast_(case.dit)
    assert case.pipe.vae is not None
    case = replace(case, pipe=Kandinsky4T2VPipeline(replace(case.pipe.parts, vae=fast_vae(case.pipe.vae))))
    fast = step_timing(case)
    other = case.pipe.sample(text, case.shape, seed=1)
    difference = ((other - latents).norm() / latents.norm()).item()
    print(f"DiT step, fast         {fast}   latents differ from exact by {difference:.4f}; "
          f"DiT {dit_gib(case.dit):.2f} GiB")  # fmt: skip
    if by_kernel:
        profile(case)
    figures = {"step_fast_ms": fast.median, "fast_latent_difference": difference}
    return {"request_fast_s": whole_request(case), "vae_fast_ms": decoding_of(case, latents).median, **figures}


@torch.inference_mode()
def measure_pipeline(size: str, device: torch.device, seed: int, *, by_kernel: bool) -> Mapping[str, Any]:
    """All stages; prints as it goes."""
    figures: dict[str, Any] = {**machine(device), "size": size}
    start = time.perf_counter()
    case = Case(size, Kandinsky4T2VPipeline(random_parts(size, device, seed=seed)), WORKLOADS[size].shape())
    print(f"{figures['device']}, torch {figures['torch']}; built in {time.perf_counter() - start:.1f} s; "
          f"attention 'auto' is {case.dit.attention.name!r}; DiT {dit_gib(case.dit):.2f} GiB on the GPU")  # fmt: skip
    alone, limit = ceilings(case)
    figures |= alone | text_and_step(case, limit, by_kernel=by_kernel)
    text = case.encode()
    latents, decoding = sample_and_decode(case, text)
    figures |= decoding
    figures["request_s"] = whole_request(case)
    other_sizes(case)
    if case.on_gpu:
        figures |= fast_precision(case, text, latents, by_kernel=by_kernel)
    return figures


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--kernels", action="store_true", help="profile one step by kernel")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    device = device_in(given)
    figures = measure_pipeline(given.size, device, given.seed, by_kernel=given.kernels)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    finish({**figures, "block_error": block_error(given.size, device, given.seed)}, given)


if __name__ == "__main__":
    main()
