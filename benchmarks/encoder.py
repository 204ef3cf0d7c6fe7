"""x264 settings for a stream of frames: how long after the last frame the file is ready, its size and its quality.

    python benchmarks/encoder.py [--interval 66] [--noise]

97 synthetic frames of 672x384 are piped as the decoder delivers them, 9 and then 8 every `--interval` milliseconds: a
panning texture with grain, or with `--noise` new coloured blocks in every frame, as hard as what random weights make.
Quality is the PSNR of luma after decoding. Needs no GPU; depends on the number of cores.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kandinsky.output.video import CODECS, ffmpeg

FRAMES, HEIGHT, WIDTH = 97, 384, 672
SETTINGS = {
    "medium (x264's default)": (),
    "veryfast": ("-preset", "veryfast"),
    "superfast": ("-preset", "superfast"),
    "superfast, zerolatency": ("-preset", "superfast", "-tune", "zerolatency"),
    "ultrafast": ("-preset", "ultrafast"),
    "in use": CODECS["h264"].settings,
}
LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


def synthetic_clip() -> np.ndarray:
    """uint8 `[97, 384, 672, 3]`."""
    rng = np.random.default_rng(0)
    height, width = HEIGHT // 4 + 60, WIDTH // 4 + 120
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    texture = np.asarray(noise.resize((4 * width, 4 * height), Image.Resampling.BICUBIC), dtype=np.float32)
    frames = (texture[2 * t : 2 * t + HEIGHT, 4 * t : 4 * t + WIDTH] for t in range(FRAMES))
    return np.stack(
        [np.clip(0.8 * f + 20 + rng.normal(0, 3, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8) for f in frames]
    )


def noise_clip() -> np.ndarray:
    """uint8 `[97, 384, 672, 3]`; twelve frames in turn."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 2, (12, HEIGHT // 8, WIDTH // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    frames = np.clip(200 * blocks + rng.normal(0, 25, blocks.shape), 0, 255).astype(np.uint8)
    return frames[np.arange(FRAMES) % len(frames)]


def encode(clip: np.ndarray, options: tuple[str, ...], path: Path, interval: float) -> float:
    """Seconds from the last chunk to the finished file."""
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "8", "-i", "-"]
    target = ["-c:v", "libx264", *options, "-crf", str(CODECS["h264"].crf), "-pix_fmt", "yuv420p", str(path)]
    process = subprocess.Popen([ffmpeg(), "-y", "-v", "error", *source, "-an", *target], stdin=subprocess.PIPE)
    assert process.stdin is not None
    for start in (0, *range(9, FRAMES, 8)):
        time.sleep(interval)
        last = time.perf_counter()
        process.stdin.write(clip[start : 9 if start == 0 else start + 8].tobytes())
    process.stdin.close()
    process.wait()
    return time.perf_counter() - last


def luma_psnr(clip: np.ndarray, path: Path) -> float:
    raw = [ffmpeg(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8).reshape(clip.shape)
    return float(10 * np.log10(255**2 / np.mean(((decoded.astype(np.float32) - clip) @ LUMA) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval", type=float, default=66, help="milliseconds between chunks (default: 66)")
    parser.add_argument("--noise", action="store_true", help="frames that hardly compress")
    arguments = parser.parse_args()
    interval, figures = arguments.interval / 1e3, {}
    clip = noise_clip() if arguments.noise else synthetic_clip()
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in SETTINGS.items():
            path = Path(folder) / "v.mp4"
            tail = min(encode(clip, options, path, interval) for _ in range(2))
            figures[name] = [tail, path.stat().st_size / 1e6, luma_psnr(clip, path)]
            print(f"{name:26s} ready {1e3 * tail:6.0f} ms after the last chunk, {figures[name][1]:5.1f} MB, "
                  f"{figures[name][2]:.2f} dB")  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
