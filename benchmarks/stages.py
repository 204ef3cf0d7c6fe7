"""Every stage of a request at full size, from nothing but a seed.

    python benchmarks/stages.py [--kernels]

Random weights of the published sizes are made on the GPU; they cost the same as real ones. For each stage: median time,
spread, TFLOP/s, share of the ceiling measured in the same run, peak memory. Then exactness: against a float32 oracle of
two full-width blocks, and fast precision against exact on final latents. `--kernels` adds a profile of one step by
kernel. The last line is JSON. Needs one GPU with 60 GB.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from measure import CUDA, Timing, attention_table, gemm_ceiling, measure, peak_gib

from kandinsky.checkpoint.random_weights import SCHEDULER, SIZES, random_dit, random_text_encoder, random_vae
from kandinsky.config import PUBLISHED_DIT
from kandinsky.memory.modes import offload_modulation_
from kandinsky.model.attention import BACKENDS, choose_attention
from kandinsky.model.dit import DiT
from kandinsky.model.operations import PLAIN, fused
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.sampler import Schedule
from kandinsky.text.encoder import TextEncoder
from kandinsky.text.t5 import T5Encoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_shape import VideoShape

PROMPT = "Several giant wooly mammoths approach treading through a snowy meadow."
TOKENIZER = Path(__file__).parents[1] / "tests" / "weights" / "tokenizer"
SHAPE = VideoShape.from_request(12, 672, 384)


def build(seed: int) -> Kandinsky4T2VPipeline:
    """A pipeline of full-size random weights on the GPU, exact, with what `auto` chooses."""
    from transformers import T5Tokenizer

    generator = torch.Generator(CUDA).manual_seed(seed)
    sizes = SIZES["full"]
    t5 = T5Encoder.from_transformers(random_text_encoder(sizes.t5, generator))
    encoder = TextEncoder(t5, T5Tokenizer.from_pretrained(TOKENIZER), text_tokens=224)
    dit = random_dit(sizes.dit, generator)
    dit.operations = fused()
    dit.attention = choose_attention("auto", device=CUDA, dtype=dit.dtype, head_dim=64, bound=dit.logit_bound())
    vae = VideoAutoencoder.from_diffusers(random_vae(sizes.vae, generator))
    pipe = Kandinsky4T2VPipeline(dit, encoder, vae, Schedule.from_config(SCHEDULER), progress=False)
    offload_modulation_(dit)
    return pipe


def step_tflop(tokens: int) -> tuple[float, float]:
    """Linears and attention of one step."""
    c = PUBLISHED_DIT
    linears = 2 * tokens * (4 * c.model_dim**2 + 2 * c.model_dim * c.ff_dim)
    attention = 4 * tokens**2 * c.model_dim
    return 2 * c.num_blocks * linears / 1e12, 2 * c.num_blocks * attention / 1e12


def prepared(pipe: Kandinsky4T2VPipeline, shape: VideoShape):
    """Latents and context of a step."""
    text = pipe.text_encoder(PROMPT)
    context = pipe.dit.prepare(text, pipe.modulation, pipe.dit.layout(shape.latent_grid, len(text)))
    return torch.randn(*shape.latent_grid, 16, device=CUDA, dtype=torch.bfloat16), context


def step_timing(pipe: Kandinsky4T2VPipeline, shape: VideoShape = SHAPE, repeats: int = 5) -> Timing:
    latents, context = prepared(pipe, shape)
    tflop = sum(step_tflop(context.layout.tokens))
    return measure(lambda: pipe.dit.step(latents, context, 1), tflop=tflop, repeats=repeats, warm_up=1)


def profile(pipe: Kandinsky4T2VPipeline) -> dict[str, float]:
    """Milliseconds of one step by kind of kernel; prints the ten kernels that take longest."""
    latents, context = prepared(pipe, SHAPE)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        pipe.dit.step(latents, context, 1)
        torch.cuda.synchronize()
    kinds: dict[str, float] = defaultdict(float)
    rows = sorted(profiler.key_averages(), key=lambda event: -event.device_time_total)
    for event in rows:
        name = event.key.lower()
        linear = any(mark in name for mark in ("nvjet", "gemm", "cutlass", "xmma", "splitk"))
        attention = any(mark in name for mark in ("attend", "flash", "fmha", "sdpa"))
        kinds["linears" if linear else "attention" if attention else "element-wise"] += event.device_time_total / 1e3
    for event in rows[:10]:
        print(f"    {event.device_time_total / 1e3:9.2f} ms {event.count:5d} x {event.key[:90]}")
    return dict(kinds)


def block_error(seed: int) -> dict[str, float]:
    """Relative error of one full-width pair of blocks at full length against float32."""
    config = replace(PUBLISHED_DIT, num_blocks=1)
    models: dict[str, DiT] = {}
    for name in ("float32", "plain", "fused", "fast"):
        models[name] = random_dit(config, torch.Generator(CUDA).manual_seed(seed))
    models["float32"].float()
    models["fused"].operations = fused()
    models["fused"].attention = models["fast"].attention = BACKENDS["bounded"]
    make_fast_(models["fast"])
    visual = torch.randn(*SHAPE.latent_grid, 16, device=CUDA).bfloat16().float()
    text = torch.randn(224, config.in_text_dim, device=CUDA).bfloat16().float() * 0.2
    outputs = {name: dit(visual, text, torch.tensor([749], device=CUDA)).float() for name, dit in models.items()}
    expected = outputs.pop("float32")
    return {name: ((output - expected).norm() / expected.norm()).item() for name, output in outputs.items()}


def make_fast_(dit: DiT) -> None:
    from kandinsky.model.float8 import quantise_blocks_

    quantise_blocks_(dit)
    dit.operations = fused(quantise=True)


def dit_gib(dit: DiT) -> float:
    """GiB of the DiT's weights on the GPU."""
    tensors = (*dit.parameters(), *dit.buffers())
    return sum(x.numel() * x.element_size() for x in tensors if x.is_cuda) / 2**30


def whole_request(pipe: Kandinsky4T2VPipeline) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        runs = [pipe(PROMPT, Path(folder) / "v.mp4", time_length=12, width=672, height=384, seed=42) for _ in range(3)]
    best = min(runs, key=lambda run: run.timings["total"])
    print("  request:", {name: round(seconds, 3) for name, seconds in best.timings.items()})
    print("  peak GiB:", {name: round(peak / 2**30, 2) for name, peak in best.peak_memory.items()})
    return best.timings


@torch.inference_mode()
def measure_pipeline(seed: int, *, kernels: bool) -> dict:
    """All stages; prints as it goes."""
    figures: dict = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    start = time.perf_counter()
    pipe = build(seed)
    dit = pipe.dit
    print(f"{figures['device']}, torch {figures['torch']}; built in {time.perf_counter() - start:.1f} s; "
          f"attention 'auto' is {dit.attention.name!r}; DiT {dit_gib(dit):.2f} GiB on the GPU")  # fmt: skip

    tokens = SHAPE.latent_frames * 24 * 42 + 224
    gemm = gemm_ceiling(tokens, PUBLISHED_DIT.model_dim, PUBLISHED_DIT.ff_dim)
    print(f"  products of a block  {gemm}")
    attention = attention_table(tokens, 48)
    for name, (timing, error) in attention.items():
        print(f"  attention {name:10s} {timing}   error {error:.5f}")
    figures["gemm_ms"] = gemm.median
    figures["attention"] = {name: [timing.median, error] for name, (timing, error) in attention.items()}

    pipe.text_encoder(PROMPT)
    encode = measure(lambda: pipe.text_encoder(PROMPT), tflop=2.1)
    print(f"T5 encode              {encode}")
    started = time.perf_counter()
    step_timing(pipe, repeats=1)
    print(f"first two steps took {time.perf_counter() - started:.1f} s")
    exact = step_timing(pipe)
    linears, products = step_tflop(tokens)
    ceiling = 42 * (gemm.median + min(timing.median for timing, _ in attention.values()))
    print(f"DiT step, exact        {exact}   {ceiling / exact.median:.0%} of products and attention alone, "
          f"{linears:.0f} + {products:.0f} TFLOP")  # fmt: skip
    if kernels:
        figures["profile_ms"] = profile(pipe)
        print("  by kind, ms:", {name: round(ms, 1) for name, ms in figures["profile_ms"].items()})
    chosen = dit.attention
    for name, operations, backend in (("plain, cuDNN", PLAIN, "cudnn"), ("fused, cuDNN", fused(), "cudnn")):
        dit.operations, dit.attention = operations, BACKENDS[backend]
        timing = step_timing(pipe, repeats=3)
        print(f"DiT step, {name} {timing}")
        figures[f"step_{name}_ms"] = timing.median
    dit.operations, dit.attention = fused(), chosen

    text = pipe.text_encoder(PROMPT)
    latents = pipe.sample_latents(text, SHAPE, seed=1)
    print(f"bit-equal twice: {torch.equal(latents, pipe.sample_latents(text, SHAPE, seed=1))}")
    print(f"peak of sampling {peak_gib(lambda: pipe.sample_latents(text, SHAPE, seed=1)):.2f} GiB")
    decode = measure(lambda: list(pipe.vae.decode(latents)), tflop=462, repeats=3, warm_up=1)
    print(f"VAE decode             {decode}, peak {peak_gib(lambda: list(pipe.vae.decode(latents))):.2f} GiB")
    figures["request_s"] = whole_request(pipe)
    for seconds, height, width in ((12, 512, 512), (5, 352, 736), (0, 512, 512), (1, 480, 544)):
        shape = VideoShape.from_request(seconds, width, height)
        started = time.perf_counter()
        timing = step_timing(pipe, shape, repeats=3)
        elapsed = time.perf_counter() - started
        print(f"  {width}x{height} {seconds:2d} s: step {timing}, with the first call {elapsed:.2f} s")

    make_fast_(dit)
    fast = step_timing(pipe)
    other = pipe.sample_latents(text, SHAPE, seed=1)
    difference = ((other - latents).norm() / latents.norm()).item()
    print(f"DiT step, fast         {fast}   latents differ from exact by {difference:.4f}; DiT {dit_gib(dit):.2f} GiB")
    if kernels:
        print("  by kind, ms:", {name: round(ms, 1) for name, ms in profile(pipe).items()})
    figures["request_fast_s"] = whole_request(pipe)
    figures |= {"t5_ms": encode.median, "step_ms": exact.median, "step_fast_ms": fast.median, "vae_ms": decode.median}
    figures["fast_latent_difference"] = difference
    return figures


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", action="store_true", help="profile one step by kernel")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    figures = measure_pipeline(arguments.seed, kernels=arguments.kernels)
    torch.cuda.empty_cache()
    figures["block_error"] = block_error(arguments.seed)
    print(
        "error of two full-width blocks against float32:", {k: round(v, 6) for k, v in figures["block_error"].items()}
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
