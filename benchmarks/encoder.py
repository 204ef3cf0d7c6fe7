"""x264 settings for a stream of frames: how long after the last frame the file is ready, its size and its quality.

    python benchmarks/encoder.py [--interval 66] [--noise]
    python benchmarks/encoder.py --size tiny --device cpu      # to try the benchmark itself

97 synthetic frames of 672x384 are piped as the decoder delivers them, 9 and then 8 every `--interval` milliseconds: a
panning texture with grain, or with `--noise` new coloured blocks in every frame, as hard as what random weights make.
Each setting's figure is the better one of two runs, the first of which warms up. Quality is the PSNR of luma after
decoding. The limit: the same frames through the same program without an encoder. The last line is JSON. Needs no GPU;
depends on the number of cores.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from script import device_in, finish, machine, parser_of

from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.video import CODECS

SIZES = {"full": (97, 672, 384), "tiny": (17, 96, 64)}
"""Frames, width, height."""
IN_USE = CODECS["h264"]
SETTINGS = {
    "medium (x264's default)": (),
    "veryfast": ("-preset", "veryfast"),
    "superfast": ("-preset", "superfast"),
    "superfast, zerolatency": ("-preset", "superfast", "-tune", "zerolatency"),
    "ultrafast": ("-preset", "ultrafast"),
    "in use": IN_USE.settings,
}
LUMA = np.array((0.299, 0.587, 0.114), dtype=np.float32)


def synthetic_clip(frames: int, width: int, height: int) -> np.ndarray:
    """uint8 `[frames, height, width, 3]`."""
    rng = np.random.default_rng(0)
    rows, columns = height // 4 + 60, width // 4 + 120
    noise = Image.fromarray(rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8))
    texture = np.asarray(noise.resize((4 * columns, 4 * rows), Image.Resampling.BICUBIC), dtype=np.float32)
    views = (texture[2 * t : 2 * t + height, 4 * t : 4 * t + width] for t in range(frames))
    return np.stack(
        [np.clip(0.8 * view + 20 + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8) for view in views]
    )


def noise_clip(frames: int, width: int, height: int) -> np.ndarray:
    """uint8 `[frames, height, width, 3]`; twelve frames in turn."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 2, (12, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    noisy = np.clip(200 * blocks + rng.normal(0, 25, blocks.shape), 0, 255).astype(np.uint8)
    return noisy[np.arange(frames) % len(noisy)]


def tail(clip: np.ndarray, target: Sequence[str], interval: float) -> float:
    """Seconds from the last chunk to the end of ffmpeg, which makes `target` of the frames; the better of two runs."""
    return min(_tail(clip, target, interval) for _ in range(2))


def _tail(clip: np.ndarray, target: Sequence[str], interval: float) -> float:
    frames, height, width, _ = clip.shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "8", "-i", "-"]
    process = subprocess.Popen([ffmpeg(), "-y", "-v", "error", *source, "-an", *target], stdin=subprocess.PIPE)
    assert process.stdin is not None
    last = 0.0
    for start in (0, *range(9, frames, 8)):
        time.sleep(interval)
        last = time.perf_counter()
        process.stdin.write(clip[start : 9 if start == 0 else start + 8].tobytes())
    process.stdin.close()
    if process.wait() != 0:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return time.perf_counter() - last


def luma_psnr(clip: np.ndarray, path: Path) -> float:
    raw = [ffmpeg(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8).reshape(clip.shape)
    return float(10 * np.log10(255**2 / np.mean(((decoded.astype(np.float32) - clip) @ LUMA) ** 2)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu",))
    parser.add_argument("--interval", type=float, default=66, help="milliseconds between chunks (default: 66)")
    parser.add_argument("--noise", action="store_true", help="frames that hardly compress")
    given = parser.parse_args(arguments)
    interval, rows = given.interval / 1e3, {}
    clip = (noise_clip if given.noise else synthetic_clip)(*SIZES[given.size])
    print(f"{os.cpu_count()} cores")
    limit = tail(clip, ("-f", "null", "-"), interval)
    print(f"{'limit: no encoder':26s} ready {1e3 * limit:6.0f} ms after the last chunk")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        for name, options in SETTINGS.items():
            encoder = ("-c:v", IN_USE.encoder, *options, "-crf", str(IN_USE.crf), "-pix_fmt", "yuv420p", str(path))
            row = {"tail_s": tail(clip, encoder, interval), "mb": path.stat().st_size / 1e6}
            rows[name] = row = row | {"psnr_db": luma_psnr(clip, path)}
            print(f"{name:26s} ready {1e3 * row['tail_s']:6.0f} ms after the last chunk, {row['mb']:5.1f} MB, "
                  f"{row['psnr_db']:.2f} dB")  # fmt: skip
    about = {**machine(device_in(given)), "size": given.size, "cores": os.cpu_count(), "noise": given.noise}
    finish({**about, "limit_s": limit, "rows": rows}, given)


if __name__ == "__main__":
    main()
