"""Time and memory of the VAE decode at full size with random weights, diffusers' decoder beside ours in one run.

    python benchmarks/vae.py [--latents 25] [--height 384] [--width 672] [--skip-diffusers] [--long 121]

Prints what the convolutions alone take (the floor: each distinct shape timed by itself), a table of kernels in one
chunk, errors of both decoders against diffusers in float32, times and peaks. The last line is JSON. Needs CUDA and
diffusers.
"""

import argparse
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kandinsky.vae import causal, decoder
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.stream import chunk_bounds, decode, to_host, to_uint8

CONFIG = {
    "block_out_channels": (128, 256, 256, 512),
    "latent_channels": 16,
    "layers_per_block": 3,
    "norm_num_groups": 32,
    "temporal_compression_ratio": 4,
    "scaling_factor": 0.7,
    "norm_eps": 1e-6,
}
ACCURACY_LATENTS = 5
KINDS = {
    "_normalise_kernel": "normalise",
    "_sums_kernel": "statistics, residual",
    "_combine_kernel": "statistics, combine",
    "Memcpy": "copies",
    "Memset": "copies",
    "copy": "copies",
    "elementwise": "element-wise",
    "nvjet": "shortcut, latent terms",
    "gemm": "convolutions",
    "cudnn": "convolutions",
    "xmma": "convolutions",
    "cutlass": "convolutions",
    "conv": "convolutions",
}
"""First part of a kernel's name that fits decides."""


def random_autoencoder(dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoencoderKLCogVideoX(**CONFIG).eval().to(dtype)


def seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_gib(work: Callable[[], object]) -> float:
    """Peak of allocated memory while `work` runs, weights included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


@torch.inference_mode()
def diffusers_frames(autoencoder: Any, latents: Tensor) -> Tensor:
    """[frames, H, W, 3] as diffusers decodes."""
    dtype = autoencoder.dtype
    z = latents.to("cuda", dtype) / CONFIG["scaling_factor"]
    return autoencoder.decode(z.permute(3, 0, 1, 2)[None]).sample[0].permute(1, 2, 3, 0)


@torch.inference_mode()
def our_frames(ours: CausalDecoder, latents: Tensor, *, memory_saving: bool = False) -> Tensor:
    z = latents.to("cuda", ours.dtype) / CONFIG["scaling_factor"]
    clip = ours.open_clip(z, memory_saving=memory_saving)
    return torch.cat([clip.decode_chunk(z[a:b].contiguous()) for a, b in chunk_bounds(len(z))])


def relative(value: Tensor, reference: Tensor) -> float:
    reference = reference.float()
    return ((value.float() - reference).norm() / reference.norm()).item()


def consume(chunks: Any) -> float:
    """Take all chunks; seconds until the first."""
    start, first = time.perf_counter(), 0.0
    for index, _ in enumerate(chunks):
        if index == 0:
            first = time.perf_counter() - start
    return first


def stream_times(ours: CausalDecoder, latents: Tensor, *, memory_saving: bool = False) -> dict[str, float]:
    """Median of three whole decodes to host memory, time of the first chunk, peak."""
    firsts = []

    def run() -> None:
        firsts.append(consume(to_host(decode(ours, latents, memory_saving=memory_saving))))

    run()
    totals = [seconds(run) for _ in range(3)]
    peak = peak_gib(run)
    reserved = torch.cuda.max_memory_reserved() / 2**30
    return {
        "seconds": statistics.median(totals),
        "first_chunk_seconds": statistics.median(firsts[1:]),
        "peak_gib": peak,
        "peak_reserved_gib": reserved,
    }


def flop(x: tuple[int, ...], kernel: tuple[int, ...]) -> float:
    """Of the function: a kernel of P x P pixels at once holds zeros, which don't count."""
    if len(kernel) == 4:
        return 2.0 * math.prod(x[:3]) * math.prod(kernel)
    patch = kernel[-1] - 2
    return 2.0 * (x[0] - kernel[2] + 1) * x[1] * x[2] * (kernel[0] // patch**2) * kernel[1] * kernel[2] * 9


def recorded_shapes(ours: CausalDecoder, z: Tensor) -> Counter:
    """How often each (input, kernel) shape is convolved in the first (3 latents) and in a later chunk."""
    shapes: Counter = Counter()
    real = causal.convolve

    def record(x: Tensor, kernel: Tensor, out: Tensor) -> None:
        shapes[tuple(x.shape), tuple(kernel.shape)] += 1
        real(x, kernel, out)

    causal.convolve = decoder.convolve = record
    try:
        clip = ours.open_clip(z)
        clip.decode_chunk(z[:3])
        shapes.clear()
        clip.decode_chunk(z[3:5])
    finally:
        causal.convolve = decoder.convolve = real
    return shapes


def time_convolution(x_shape: tuple[int, ...], k_shape: tuple[int, ...], dtype: torch.dtype) -> float:
    """Milliseconds of one convolution by itself."""
    from triton.testing import do_bench

    layout = torch.channels_last_3d if len(k_shape) == 5 else torch.channels_last
    x = torch.randn(x_shape, device="cuda", dtype=dtype)
    kernel = torch.randn(k_shape, device="cuda", dtype=dtype).mul_(0.02).contiguous(memory_format=layout)
    frames, height, width = x_shape[:3]
    if len(k_shape) == 4:
        out = x.new_empty(frames, height + 1, width + 1, k_shape[0])
    else:
        patch = k_shape[-1] - 2
        out = x.new_empty(frames - k_shape[2] + 1, height // patch, width // patch, k_shape[0])
    causal.convolve(x, kernel, out, border=0)
    return do_bench(lambda: causal.convolve(x, kernel, out, border=0), warmup=10, rep=30, return_mode="median")


def convolution_floor(ours: CausalDecoder, z: Tensor) -> float:
    """Milliseconds of all convolutions of one chunk of 8 frames, each shape timed alone; prints the table."""
    total, work = 0.0, 0.0
    print(f"{'input':>24} {'kernel':>22} times   ms each  ms all  TFLOP/s")
    for (x, k), count in recorded_shapes(ours, z).items():
        each = time_convolution(x, k, z.dtype)
        rate = flop(x, k) / each / 1e9
        total += each * count
        work += flop(x, k) * count
        print(f"{x!s:>24} {k!s:>22} {count:5} {each:9.3f} {each * count:7.2f} {rate:8.0f}")
    print(f"convolutions of a chunk: {total:.2f} ms, {work / 1e12:.1f} TFLOP, {work / total / 1e9:.0f} TFLOP/s")
    return total


def kernel_table(ours: CausalDecoder, z: Tensor) -> dict[str, float]:
    """Milliseconds of one chunk of 8 frames by kind of kernel."""
    from torch.profiler import ProfilerActivity, profile

    clip = ours.open_clip(z)
    clip.decode_chunk(z[:3])
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        to_uint8(clip.decode_chunk(z[3:5]))
        torch.cuda.synchronize()
    table: Counter = Counter()
    for event in profiler.key_averages():
        kind = next((kind for part, kind in KINDS.items() if part in event.key), f"other: {event.key[:60]}")
        table[kind] += event.self_device_time_total / 1e3
    for kind, milliseconds in table.most_common():
        print(f"{kind:30} {milliseconds:8.2f} ms")
    print(f"{'all kernels of a chunk':30} {sum(table.values()):8.2f} ms")
    return dict(table)


def accuracy(autoencoder: Any, ours: CausalDecoder, latents: Tensor) -> dict[str, float]:
    """Relative errors of both bf16 decoders against diffusers in float32 with the same weights."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    few = latents[:ACCURACY_LATENTS]
    theirs, mine = diffusers_frames(autoencoder, few), our_frames(ours, few)
    saving = our_frames(ours, few, memory_saving=True)
    # float32 from what the bf16 decoders are given: the division by the scaling factor was rounded
    z = (few.to("cuda", autoencoder.dtype) / CONFIG["scaling_factor"]).float() * CONFIG["scaling_factor"]
    reference = diffusers_frames(autoencoder.float(), z)
    autoencoder.to(ours.dtype)
    return {
        "diffusers_error": relative(theirs, reference),
        "our_error": relative(mine, reference),
        "saving_differs": relative(saving, mine),
        "reference_std": reference.std().item(),
    }


def diffusers_times(autoencoder: Any, latents: Tensor) -> dict[str, float]:
    diffusers_frames(autoencoder, latents)
    took = seconds(lambda: diffusers_frames(autoencoder, latents))
    return {"seconds": took, "peak_gib": peak_gib(lambda: diffusers_frames(autoencoder, latents))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, default=25)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=672)
    parser.add_argument("--long", type=int, default=121)
    parser.add_argument("--skip-diffusers", action="store_true")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(args.latents, args.height // 8, args.width // 8, 16, generator=generator) * 0.7
    autoencoder = random_autoencoder(torch.bfloat16)
    ours = CausalDecoder.from_diffusers(autoencoder)
    z = (latents.cuda() / CONFIG["scaling_factor"]).bfloat16()
    report: dict[str, Any] = {"device": torch.cuda.get_device_name(), "latents": args.latents}
    report["first_call_seconds"] = seconds(lambda: our_frames(ours, latents[:5]))
    print(f"first call, kernels compiled and chosen: {report['first_call_seconds']:.1f} s", flush=True)
    if not args.skip_diffusers:
        report["accuracy"] = accuracy(autoencoder, ours, latents)
        print(report["accuracy"], flush=True)
        report["diffusers"] = diffusers_times(autoencoder, latents)
        print("diffusers", report["diffusers"], flush=True)
    autoencoder = None  # its decoder's weights live on where ours are the same
    report["ours"] = stream_times(ours, latents)
    print("ours", report["ours"], flush=True)
    report["memory_saving"] = stream_times(ours, latents, memory_saving=True)
    print("memory saving", report["memory_saving"], flush=True)
    report["kernels_ms"] = kernel_table(ours, z)
    floor = convolution_floor(ours, z)
    frames = 4 * (args.latents - 1) + 1
    report["convolution_floor_seconds"] = floor / 8 * frames / 1e3
    report["share_of_floor"] = report["convolution_floor_seconds"] / report["ours"]["seconds"]
    if args.long:
        longer = latents.repeat(-(-args.long // len(latents)), 1, 1, 1)[: args.long]
        report["long_peak_gib"] = peak_gib(lambda: consume(to_host(decode(ours, longer))))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
