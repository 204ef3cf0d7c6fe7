"""Time and memory of the VAE decode at full size with random weights, diffusers' decoder beside ours in one run.

    python benchmarks/vae.py [--latents 25] [--width 672] [--height 384] [--skip-diffusers] [--long 121]
    python benchmarks/vae.py --size tiny --device cpu      # to try the benchmark itself

Prints errors of both decoders against diffusers in float32, times and peaks, a table of kernels in one chunk, and the
limit: what the convolutions of a chunk take when each distinct shape is timed by itself, with nothing of it in the
cache. Where it runs, the decoder of precision="fast" too: how far its frames are from the exact decoder's, times, peaks
and kernels. The last line is JSON. Needs CUDA and diffusers; a CPU tells no peaks of memory.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from measure import gib, kernels, peak_gib, seconds, synchronise
from script import device_in, finish, machine, parser_of
from torch import Tensor
from vae_convolutions import convolutions, timed

from kandinsky.checkpoint.random_weights import SIZES
from kandinsky.loading.devices import default_dtype
from kandinsky.vae import float8
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.stream import chunk_bounds, decode, to_host, to_uint8

CONFIG: dict[str, Any] = {
    "latent_channels": 16,
    "temporal_compression_ratio": 4,
    "scaling_factor": 0.7,
    "norm_eps": 1e-6,
}
CLIPS = {"full": (25, 672, 384, 121), "tiny": (5, 32, 16, 7)}
"""Latent frames, width and height in pixels, latent frames of the long clip."""
ACCURACY_LATENTS = 5
CHUNK_FRAMES = 8
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "_convolve": "convolutions in float8",
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
)
"""First part of a kernel's name that fits decides."""


def random_autoencoder(size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """diffusers' module as it initialises itself, in eval mode."""
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(0)
    with torch.device(device):
        autoencoder = AutoencoderKLCogVideoX(**CONFIG, **SIZES[size].vae).eval().requires_grad_(False)
    return torch.nn.Module.to(autoencoder, dtype)


@torch.inference_mode()
def diffusers_frames(autoencoder: Any, latents: Tensor) -> Tensor:
    """[frames, H, W, 3] as diffusers decodes."""
    z = latents.to(autoencoder.device, autoencoder.dtype) / CONFIG["scaling_factor"]
    return autoencoder.decode(z.permute(3, 0, 1, 2)[None]).sample[0].permute(1, 2, 3, 0)


@torch.inference_mode()
def our_frames(ours: CausalDecoder, latents: Tensor, *, memory_saving: bool = False) -> Tensor:
    z = latents.to(ours.device, ours.dtype) / CONFIG["scaling_factor"]
    clip = ours.open_clip(z, memory_saving=memory_saving)
    return torch.cat([clip.decode_chunk(z[a:b].contiguous()) for a, b in chunk_bounds(len(z))])


def relative(value: Tensor, reference: Tensor) -> float:
    reference = reference.float()
    return ((value.float() - reference).norm() / reference.norm()).item()


def consume(chunks: Iterable[Tensor]) -> float:
    """Take all chunks; seconds until the first."""
    start, first = time.perf_counter(), 0.0
    for index, _ in enumerate(chunks):
        if index == 0:
            first = time.perf_counter() - start
    return first


def decode_to_host(ours: CausalDecoder, latents: Tensor, *, memory_saving: bool = False) -> float:
    """A whole clip; seconds until its first chunk is on the host."""
    return consume(to_host(decode(ours, latents, memory_saving=memory_saving)))


def stream_times(ours: CausalDecoder, latents: Tensor, *, memory_saving: bool = False) -> dict[str, float | None]:
    """Median of three whole decodes to host memory after a first one, time of the first chunk, peak."""
    device, firsts = ours.device, []

    def run() -> None:
        firsts.append(decode_to_host(ours, latents, memory_saving=memory_saving))

    run()
    totals = [seconds(run, device) for _ in range(3)]
    figures = {"seconds": statistics.median(totals), "first_chunk_seconds": statistics.median(firsts[1:])}
    return figures | peaks(run, device)


def peaks(run: Any, device: torch.device) -> dict[str, float | None]:
    """GiB allocated and reserved at most while `run` runs, weights included; None where there is no GPU."""
    if device.type != "cuda":
        return {"peak_gib": None, "peak_reserved_gib": None}
    torch.cuda.empty_cache()
    allocated = peak_gib(run, device)
    return {"peak_gib": allocated, "peak_reserved_gib": torch.cuda.max_memory_reserved(device) / 2**30}


@torch.inference_mode()
def later_chunk(ours: CausalDecoder, z: Tensor) -> Any:
    """A function that decodes a chunk of 8 frames, after a first chunk of 9."""
    clip = ours.open_clip(z)
    clip.decode_chunk(z[:3])
    synchronise(ours.device)
    return lambda: to_uint8(clip.decode_chunk(z[3:5]))


def kernel_table(ours: CausalDecoder, z: Tensor) -> dict[str, float]:
    """Milliseconds of one chunk of 8 frames by kind of kernel."""
    table: defaultdict[str, float] = defaultdict(float)
    for kernel in kernels(later_chunk(ours, z), ours.device):
        kind = next((kind for part, kind in KINDS.items() if part in kernel.name), f"other: {kernel.name[:60]}")
        table[kind] += kernel.milliseconds
    for kind, milliseconds in sorted(table.items(), key=lambda item: -item[1]):
        print(f"{kind:30} {milliseconds:8.2f} ms")
    print(f"{'all kernels of a chunk':30} {sum(table.values()):8.2f} ms")
    return dict(table)


def convolution_floor(ours: CausalDecoder, z: Tensor) -> dict[str, float]:
    """All convolutions of one chunk of 8 frames, each shape timed alone: how many, their work and milliseconds."""
    total, work, calls = 0.0, 0.0, 0
    print(f"{'input':>24} {'kernel':>22} times   ms each  ms all  TFLOP/s")
    for each, count in convolutions(later_chunk(ours, z)).items():
        timing = timed(each, ours.device, ours.dtype)
        total += timing.median * count
        work += timing.tflop * count
        calls += count
        print(f"{each.x!s:>24} {each.kernel!s:>22} {count:5} {timing.median:9.3f} {timing.median * count:7.2f} "
              f"{timing.tflops:8.0f}")  # fmt: skip
    print(f"convolutions of a chunk: {total:.2f} ms, {work:.1f} TFLOP, {work / total * 1e3:.0f} TFLOP/s")
    return {"calls": calls, "tflop": work, "ms": total}


def accuracy(autoencoder: Any, ours: CausalDecoder, latents: Tensor) -> dict[str, float]:
    """Relative errors of both decoders against diffusers in float32 with the same weights."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    few = latents[:ACCURACY_LATENTS]
    theirs, mine = diffusers_frames(autoencoder, few), our_frames(ours, few)
    saving = our_frames(ours, few, memory_saving=True)
    # float32 from what the bf16 decoders are given: the division by the scaling factor was rounded
    z = (few.to(ours.device, ours.dtype) / CONFIG["scaling_factor"]).float() * CONFIG["scaling_factor"]
    reference = diffusers_frames(torch.nn.Module.to(autoencoder, torch.float32), z)
    torch.nn.Module.to(autoencoder, ours.dtype)
    return {
        "diffusers_error": relative(theirs, reference),
        "our_error": relative(mine, reference),
        "saving_differs": relative(saving, mine),
        "reference_std": reference.std().item(),
    }


def diffusers_times(autoencoder: Any, latents: Tensor) -> dict[str, float | None]:
    def run() -> Tensor:
        return diffusers_frames(autoencoder, latents)

    run()
    return {"seconds": seconds(run, autoencoder.device), **peaks(run, autoencoder.device)}


def fast_figures(size: str, device: torch.device, latents: Tensor, expected: Tensor) -> dict[str, Any]:
    """Of the same weights in float8, of whose first latents the exact decoder makes `expected`; prints as it goes."""
    autoencoder = random_autoencoder(size, device, default_dtype(device))
    fast = CausalDecoder.from_diffusers(autoencoder, convert=float8.where_it_runs)
    del autoencoder
    difference = relative(our_frames(fast, latents[:ACCURACY_LATENTS]), expected)
    figures = {"difference": difference, **stream_times(fast, latents)}
    print("fast", figures, flush=True)
    saving = stream_times(fast, latents, memory_saving=True)
    z = (latents.to(fast.device) / CONFIG["scaling_factor"]).to(fast.dtype)
    return {**figures, "memory_saving": saving, "kernels_ms": kernel_table(fast, z)}


def measure_all(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All figures; prints as it goes."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(given.latents, given.height // 8, given.width // 8, 16, generator=generator) * 0.7
    autoencoder = random_autoencoder(given.size, device, default_dtype(device))
    ours = CausalDecoder.from_diffusers(autoencoder)
    report: dict[str, Any] = {"first_call_seconds": seconds(lambda: our_frames(ours, latents[:5]), device)}
    print(f"first call, kernels compiled and chosen: {report['first_call_seconds']:.1f} s", flush=True)
    if not given.skip_diffusers:
        report["accuracy"] = accuracy(autoencoder, ours, latents)
        print(report["accuracy"], flush=True)
        report["diffusers"] = diffusers_times(autoencoder, latents)
        print("diffusers", report["diffusers"], flush=True)
    del autoencoder  # its decoder's weights live on where ours are the same
    report["ours"] = stream_times(ours, latents)
    print("ours", report["ours"], flush=True)
    report["memory_saving"] = stream_times(ours, latents, memory_saving=True)
    print("memory saving", report["memory_saving"], flush=True)
    z = (latents.to(device) / CONFIG["scaling_factor"]).to(ours.dtype)
    report["kernels_ms"] = kernel_table(ours, z)
    frames = 4 * (given.latents - 1) + 1
    report["convolutions_of_a_chunk"] = alone = convolution_floor(ours, z)
    report["convolution_floor_seconds"] = alone["ms"] / CHUNK_FRAMES * frames / 1e3
    report["share_of_floor"] = report["convolution_floor_seconds"] / report["ours"]["seconds"]
    if given.long:
        longer = latents.repeat(-(-given.long // len(latents)), 1, 1, 1)[: given.long]
        report["long_peak_gib"] = peak_gib(lambda: decode_to_host(ours, longer), device)
        print(f"peak with {given.long} latents: {gib(report['long_peak_gib'])}")
    if float8.kernel_on(device) is not None:
        expected = our_frames(ours, latents[:ACCURACY_LATENTS])
        del ours  # its weights are not to be counted
        report["fast"] = fast_figures(given.size, device, latents, expected)
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--latents", type=int, help="latent frames, 5 and more (default: 25, at tiny size 5)")
    parser.add_argument("--width", type=int, help="pixels (default: 672, at tiny size 32)")
    parser.add_argument("--height", type=int, help="pixels (default: 384, at tiny size 16)")
    parser.add_argument(
        "--long", type=int, help="latent frames of a long clip, 0 for none (default: 121, at tiny size 7)"
    )
    parser.add_argument("--skip-diffusers", action="store_true")
    given = parser.parse_args(arguments)
    for name, usual in zip(("latents", "width", "height", "long"), CLIPS[given.size], strict=True):
        if getattr(given, name) is None:
            setattr(given, name, usual)
    device = device_in(given)
    about = {**machine(device), "size": given.size, "latents": given.latents}
    finish({**about, **measure_all(given, device)}, given)


if __name__ == "__main__":
    main()
