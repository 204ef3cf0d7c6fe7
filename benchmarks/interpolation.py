"""Frames between frames: how near they come to frames that were left out, and what they cost behind the decoder.

    python benchmarks/interpolation.py a.mp4 b.mp4 [--strips folder]
    torchrun --nproc-per-node 2 benchmarks/interpolation.py          # what it costs two GPUs together
    python benchmarks/interpolation.py --size tiny --device cpu      # to try the benchmark itself

Quality: of each video every second frame is left out and made again by four ways: the frame before is held, its
neighbours are averaged, ffmpeg's motion-compensated filter, the network. PSNR in dB and SSIM (11x11 Gaussian window of
1.5 pixels, on grey) are means over frames. With `--strips`, pictures of some of these frames are written, one row each:
the one that was left out, ffmpeg's, the network's. Without videos, one is drawn.
Cost: a VAE with random weights decodes 97 frames at 672x384 to the host, as they are and with two frames in each gap,
by the network and by ffmpeg. First frames are the first in the order of the video, with those between them. Several
ranks decode together; the first one's figures count. The limit is no seconds more than the decoding.
The last line is JSON.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import peak_gib, synchronise
from PIL import Image
from script import device_in, finish, machine, parser_of
from torch import Tensor

from kandinsky.checkpoint.random_weights import SIZES, random_vae
from kandinsky.config import INTERPOLATORS
from kandinsky.interpolate import frames as made_frames
from kandinsky.interpolate.minterpolate import cores, minterpolated
from kandinsky.loading.devices import default_dtype
from kandinsky.output.between import smoothed
from kandinsky.output.options import Output
from kandinsky.output.read_video import open_video, read_frames
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks, open_group
from kandinsky.parallel.strips import strips_of
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.rows import all_rows

LATENTS = {"full": (25, 48, 84, 16), "tiny": (3, 4, 6, 16)}
FACTOR = 3
ROUNDS = {"full": 5, "tiny": 1}
STRIP_ROWS = 4
WAYS = ("hold", "average", "ffmpeg", "network")


def drawn_video() -> np.ndarray:
    """Noise that moves a pixel to the right in each frame, uint8 `[9, 64, 96, 3]`."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    large = noise.repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([np.roll(large, shift, axis=1) for shift in range(9)])


def made_again(video: np.ndarray, device: torch.device) -> dict[str, np.ndarray]:
    """Every second frame, by each of `WAYS`."""
    kept = video[::2]
    pairs = (kept[:-1].astype(np.float32), kept[1:].astype(np.float32))
    chunks = (kept[i : i + 8] for i in range(0, len(kept), 8))
    return {
        "hold": kept[:-1],
        "average": ((pairs[0] + pairs[1]) / 2).round().astype(np.uint8),
        "ffmpeg": np.concatenate(list(minterpolated(chunks, 2)))[1::2],
        "network": made_frames(kept, 2, interpolate_with="network", device=device)[1::2],
    }


def psnr(made: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over frames, dB; a frame without any error counts as 100."""
    errors = [float(((a.astype(np.float64) - b) ** 2).mean()) for a, b in zip(made, wanted, strict=True)]
    return statistics.fmean(100 if error == 0 else 10 * np.log10(255**2 / error) for error in errors)


def ssim(made: np.ndarray, wanted: np.ndarray, device: torch.device) -> float:
    """Mean over frames (Wang et al. 2004), on grey."""
    pairs = zip(made, wanted, strict=True)
    return statistics.fmean(_ssim(_grey(a, device), _grey(b, device)) for a, b in pairs)


def _grey(frame: np.ndarray, device: torch.device) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=device)
    return (torch.from_numpy(frame.copy()).to(device).double() @ weights)[None, None]


def _ssim(a: Tensor, b: Tensor) -> float:
    line = torch.exp(-((torch.arange(11, dtype=torch.float64, device=a.device) - 5) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    column, row = line.view(1, 1, 11, 1), line.view(1, 1, 1, 11)
    mean_a, mean_b, aa, bb, ab = (F.conv2d(F.conv2d(x, column), row) for x in (a, b, a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance, variances = ab - mean_a * mean_b, aa - mean_a**2 + bb - mean_b**2
    shape = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((shape / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean())


def quality(name: str, video: np.ndarray, device: torch.device, strips: Path | None) -> dict[str, dict[str, float]]:
    """PSNR and SSIM of each way; `video` uint8 `[n, height, width, 3]`."""
    video = video[: (len(video) - 1) // 2 * 2 + 1]
    wanted, made = video[1::2], made_again(video, device)
    if strips is not None:
        strips.mkdir(parents=True, exist_ok=True)
        chosen = np.linspace(0, len(wanted) - 1, min(STRIP_ROWS, len(wanted))).astype(int)
        rows = [np.concatenate((wanted[i], made["ffmpeg"][i], made["network"][i]), axis=1) for i in chosen]
        Image.fromarray(np.concatenate(rows)).save(strips / f"{name}.png")
    return {
        way: {"psnr": round(psnr(made[way], wanted), 3), "ssim": round(ssim(made[way], wanted, device), 5)}
        for way in WAYS
    }


def cost(vae: VideoAutoencoder, latents: Tensor, way: str | None, rounds: int) -> dict[str, Any]:
    """Seconds from latents to all frames on the host, and to the first of them; medians after a first call."""
    factor = None if way is None else FACTOR
    output = Output(kind="np", fps=None, crf=None, codec=None, metadata=False, interpolate=factor, interpolate_with=way)

    def run() -> tuple[float, float, int]:
        synchronise(latents.device)
        start, count, first = time.perf_counter(), 0, 0.0
        for chunk in smoothed(vae, latents, output, memory_saving=None):
            first = first or time.perf_counter() - start
            count += len(chunk)
        return time.perf_counter() - start, first, count

    first_call, _, count = run()
    whole, first = zip(*(run()[:2] for _ in range(rounds)), strict=True)
    return {
        "frames": count,
        "seconds": statistics.median(whole),
        "first_seconds": statistics.median(first),
        "first_call_seconds": first_call,
        "peak_gib": peak_gib(run, latents.device),
    }


def random_autoencoder(size: str, device: torch.device, ranks: Ranks) -> VideoAutoencoder:
    """A VAE with random weights, the same on each rank, which decodes a strip of each picture."""
    vae = random_vae(SIZES[size].vae, torch.Generator(device).manual_seed(0), dtype=default_dtype(device))
    rows_of = all_rows if ranks.size == 1 else strips_of(Messenger(ranks, device))
    return VideoAutoencoder.from_diffusers(vae, rows_of=rows_of)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--strips", type=Path, metavar="FOLDER", help="folder for pictures")
    given = parser.parse_args(arguments)
    device = device_in(given)
    ranks = open_group(device)
    table = qualities(given, device) if ranks.is_main else {}
    vae = random_autoencoder(given.size, device, ranks)
    generator = torch.Generator(device).manual_seed(1)
    latents = torch.randn(LATENTS[given.size], generator=generator, device=device)
    rounds = ROUNDS[given.size]
    plain, smooth = cost(vae, latents, None, rounds), {}
    for way in INTERPOLATORS:
        smooth[way] = found = cost(vae, latents, way, rounds)
        found["added_seconds"] = found["seconds"] - plain["seconds"]
        found["later_first_seconds"] = found["first_seconds"] - plain["first_seconds"]
    about = {**machine(device), "processes": ranks.size, "size": given.size, "cores": cores()}
    if ranks.is_main:
        finish({**about, "quality": table, "plain": plain, "smooth": smooth}, given)


def qualities(given: argparse.Namespace, device: torch.device) -> dict[str, dict[str, dict[str, float]]]:
    """`quality` of each video, which is also printed as the table's row."""
    videos = {path.stem: np.concatenate(list(read_frames(open_video(path)))) for path in given.videos}
    table = {}
    for name, video in (videos or {"drawn": drawn_video()}).items():
        table[name] = quality(name, video, device, given.strips)
        figures = "  ".join(f"{way} {table[name][way]['psnr']:.2f} / {table[name][way]['ssim']:.4f}" for way in WAYS)
        print(f"{name:>10}  {figures}", flush=True)
    return table


if __name__ == "__main__":
    main()
