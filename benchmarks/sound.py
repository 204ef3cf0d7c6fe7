"""A sound for a video at full size: time of every stage, memory, and what the file holds.

    python benchmarks/sound.py [--video FILE] [--save-path FILE]
    python benchmarks/sound.py --size tiny --device cpu      # to try the benchmark itself

Random weights of the published sizes are drawn on the device, and random embeddings take the place of the encoder's;
they cost the same as real ones. Sampling is 50 steps with guidance, both halves in one batch. Its limit is printed: the
operations of a step at the rate of one large matrix product, measured in the same run. The file is then probed:
whether the picture's stream is that of the video to the byte, which codec the sound has, and by how much the lengths
differ. Two runs with one seed have to give the same sound. The last line is JSON. Needs one GPU with 8 GB.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import measure
from script import device_in, finish, machine, parser_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kandinsky.audio.embeddings import TEXT_ROWS, Embeddings
from kandinsky.audio.load import VAE_DTYPE
from kandinsky.audio.parts import SoundParts
from kandinsky.audio.pipeline import Kandinsky4V2APipeline
from kandinsky.audio.sample import CHANNELS, HEIGHT
from kandinsky.audio.unet import ENCODER_DIM, build_unet, velocity
from kandinsky.checkpoint.random_weights import fill_
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.loading.devices import default_dtype
from kandinsky.memory.footprint import LIBRARY_BYTES
from kandinsky.memory.sound import WORKING_BYTES
from kandinsky.output.video import VideoWriter

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}
UNET = {
    "full": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "tiny": {
        "sample_size": 64,
        "cross_attention_dim": 64,
        "attention_head_dim": 2,
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    },
}
"""Stable Diffusion 1's, by diffusers' defaults where nothing is said."""
CHANNELS_OF_VAE = {"full": [128, 256, 512, 512], "tiny": [8, 8, 8, 8]}
SECONDS, STEPS = {"full": 12, "tiny": 1}, {"full": 50, "tiny": 2}
GUIDANCE = 8.0
PRODUCT = {"full": 8192, "tiny": 64}
"""Rows and columns of the large matrix product."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--video", type=Path, help="that gets a sound; default: one that is made here")
    parser.add_argument("--save-path", type=Path, help="for the video with its sound, to be kept")
    given = parser.parse_args(arguments)
    device = device_in(given)
    pipe = Kandinsky4V2APipeline(random_parts(given.size, device))
    with tempfile.TemporaryDirectory() as folder:
        video = given.video or made_video(Path(folder) / "video.mp4", given.size)
        target = given.save_path or Path(folder) / "sound.mp4"
        figures = {
            **machine(device),
            "size": given.size,
            **stages(pipe, video, target, given),
            **step(pipe, given.size),
        }
        figures |= probed(video, target)
    finish(figures, given)


def random_parts(size: str, device: torch.device) -> SoundParts:
    """UNet and VAE of random weights."""
    from diffusers import AutoencoderKL

    generator = torch.Generator(device).manual_seed(0)
    with torch.device("meta"):
        unet = build_unet(UNET[size])
        vae: Any = AutoencoderKL.from_config(vae_config(size))
    for module, dtype in ((unet, default_dtype(device)), (vae, VAE_DTYPE)):
        nn.Module.to(module, dtype)
        module.to_empty(device=device)
        fill_(module, generator)
        module.requires_grad_(False).eval()
    return SoundParts(unet=unet, vae=vae, scheduler=SCHEDULER, progress=False)


def vae_config(size: str) -> dict[str, Any]:
    """Of Stable Diffusion 1's VAE, or a tiny one."""
    channels = CHANNELS_OF_VAE[size]
    return {
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": 2 if size == "full" else 1,
        "norm_num_groups": 32 if size == "full" else 4,
    }


def random_embeddings(frames: int) -> Embeddings:
    """As large as the encoder's."""
    generator = torch.Generator().manual_seed(0)
    text, video = (torch.randn(2, rows, ENCODER_DIM, generator=generator) / 2 for rows in (TEXT_ROWS, frames))
    return Embeddings(text, video)


def made_video(path: Path, size: str) -> Path:
    """A bright bar that goes from left to right, at 8 frames a second."""
    width, height = (672, 384) if size == "full" else (64, 64)
    frames = np.zeros((8 * SECONDS[size] + 1, height, width, 3), np.uint8)
    for index, frame in enumerate(frames):
        left = index * (width - 8) // len(frames)
        frame[:, left : left + 8] = 255
    with VideoWriter(path, width=width, height=height, fps=8) as writer:
        writer.write(frames)
        writer.finish()
    return path


def stages(pipe: Kandinsky4V2APipeline, video: Path, target: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of each stage, medians after a run that warms up."""
    call = {"embeddings": random_embeddings(96), "num_inference_steps": STEPS[given.size], "guidance_scale": GUIDANCE}
    pipe(video, seed=0, **call)
    results = [pipe(video, seed=0, save_path=target, **call) for _ in range(3)]
    seconds = {name: statistics.median(r.timings[name] for r in results) for name in results[0].timings}
    peaks = {name: peak / 1e9 for name, peak in results[0].peak_memory.items()}
    same = all(torch.equal(r.waveform, results[0].waveform) for r in results)
    for name, value in seconds.items():
        print(f"{name:>9} {value:8.3f} s" + (f"  peak {peaks[name]:.2f} GB" if name in peaks else ""))
    parameters = sum(p.numel() for p in pipe.parts.unet.parameters())
    planned = sum(p.numel() * p.itemsize for m in (pipe.parts.unet, pipe.parts.vae) for p in m.parameters())
    return {
        "seconds": seconds,
        "peak_gb": peaks,
        "same_sound_twice": same,
        "unet_parameters": parameters,
        "planned_gb": (planned + WORKING_BYTES + LIBRARY_BYTES) / 1e9,
        "samples": len(results[0].waveform),
        "loudest": float(results[0].waveform.abs().max()),
    }


def step(pipe: Kandinsky4V2APipeline, size: str) -> dict[str, Any]:
    """One step of the UNet on both halves, its work, and what a large matrix product says that it could take."""
    unet = pipe.parts.unet
    device, dtype = unet.device, unet.dtype
    known = random_embeddings(96)
    text, video = known.text.to(device, dtype), known.video.to(device, dtype)
    latents = torch.randn(2, CHANNELS, HEIGHT, 100 * SECONDS[size] // 32 * 4, device=device)

    def run() -> None:
        with torch.inference_mode():
            velocity(unet, latents, 501, text=text, video=video)

    counter = FlopCounterMode(display=False)
    with counter:
        run()
    tflop = counter.get_total_flops() / 1e12
    taken = measure(run, device=device, tflop=tflop)
    side = PRODUCT[size]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = measure(lambda: a @ b, device=device, tflop=2 * side**3 / 1e12)
    limit = tflop / product.tflops * 1e3
    print(f"step of the UNet {taken}; limit {limit:.2f} ms ({tflop:.2f} TFLOP at {product.tflops:.0f} TFLOP/s)")
    return {"step_ms": taken.median, "step_tflop": tflop, "step_limit_ms": limit}


def probed(video: Path, target: Path) -> dict[str, Any]:
    """What the file with the sound holds, beside the video."""
    picture = [_hash(path, "0:v") for path in (video, target)]
    listed = {
        kind: _said("-i", f"file:{target}", "-map", f"0:{kind}", "-c", "copy", "-f", "framecrc", "-") for kind in "va"
    }
    codec = re.search(r"^#codec_id 0: (\w+)", listed["a"], re.MULTILINE)
    lengths = {kind: float(_length(text)) for kind, text in listed.items()}
    frames = sum(line[:1].isdigit() for line in listed["v"].splitlines())
    figures = {
        "picture_unchanged": picture[0] == picture[1],
        "sound_codec": codec[1] if codec else "none",
        "picture_s": lengths["v"],
        "sound_s": lengths["a"],
        "frame_s": lengths["v"] / frames,
    }
    print(", ".join(f"{name} {value}" for name, value in figures.items()))
    return figures


def _said(*arguments: str) -> str:
    return subprocess.run([ffmpeg(), "-v", "error", *arguments], capture_output=True, text=True, check=True).stdout


def _hash(path: Path, stream: str) -> str:
    return _said("-i", f"file:{path}", "-map", stream, "-c", "copy", "-f", "streamhash", "-").rpartition("=")[2]


def _length(framecrc: str) -> Fraction:
    """Seconds from the first packet that is played to the end of the last."""
    unit = re.search(r"^#tb 0: (\S+)$", framecrc, re.MULTILINE)
    assert unit is not None
    packets = [list(map(int, line.split(",")[1:4])) for line in framecrc.splitlines() if line[:1].isdigit()]
    ends = max(packet[1] + packet[2] for packet in packets)
    return (ends - max(0, min(packet[1] for packet in packets))) * Fraction(unit[1])


if __name__ == "__main__":
    main()
