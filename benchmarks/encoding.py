"""What our x264 setting costs in bytes: its files beside those of a slower preset, on real videos.

    python benchmarks/encoding.py VIDEO... [--preset medium] [--crf 1 3 5 7 9]
    python benchmarks/encoding.py --size tiny --device cpu      # a small made-up clip, to try the benchmark itself

The decoded frames of each video are the reference. They are written with `VideoWriter` as the pipeline writes them,
and by ffmpeg's libx264 with the preset at each crf. Quality is the PSNR over all frames of what the encoder was given
and what it gives back, both as yuv420p: of luma alone, and of all samples, chroma included. The preset's size at the
quality of our file is read off a line through its two nearest points, log(size) over PSNR. At the same crf sizes alone
say little, because our setting has another quality there.

How much faster our setting is, `encoder.py` measures. Needs no GPU. The last line is JSON. The limit of what it
tells: a video that was compressed before may have lost fine grain, and be easier to compress again than the frames that
the model made; and PSNR is not what eyes see.
"""

import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from encoder import SIZES as CLIPS
from encoder import synthetic_clip
from imageio_ffmpeg import read_frames
from script import device_in, finish, machine, parser_of

from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.video import CODECS, Encoding, VideoWriter

CRFS = (1, 3, 5, 7, 9)
"""Around the crf that is in use; the preset's quality at them has to enclose that of our files."""
MEASURES = ("luma", "all samples")


@dataclass(frozen=True)
class Point:
    """One file: bytes, and PSNR in dB by each of `MEASURES`."""

    size: int
    psnr: Mapping[str, float]


def decoded(path: Path) -> tuple[np.ndarray, int]:
    """A video's frames, uint8 `[frames, height, width, 3]`, and how many of them play in a second."""
    reader: Iterator = read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames), max(round(about["fps"]), 1)


def raw_input(frames: np.ndarray, fps: int) -> list[str]:
    """ffmpeg's arguments for frames that are piped in."""
    height, width = frames.shape[1:3]
    return ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]


def planes(source: Sequence[str], count: int, given: bytes | None = None) -> np.ndarray:
    """yuv420p, uint8 `[count, samples]`, luma first: what an encoder gets, and what it gives back.

    RGB would not do: converting back to it costs more than a low crf does.
    """
    command = [ffmpeg(), "-v", "error", *source, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    done = subprocess.run(command, input=given, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(count, -1)


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """dB, over all frames together."""
    pairs = zip(picture, reference, strict=True)
    mean = float(np.mean([np.mean((frame.astype(np.float32) - other) ** 2) for frame, other in pairs]))
    return 10 * math.log10(255**2 / mean) if mean else math.inf


def point_of(path: Path, reference: np.ndarray) -> Point:
    """Size and quality of a file whose encoder was given `reference`."""
    found = planes(["-i", str(path)], len(reference))
    luma = reference.shape[1] * 2 // 3
    return Point(
        path.stat().st_size,
        {"luma": psnr(found[:, :luma], reference[:, :luma]), "all samples": psnr(found, reference)},
    )


def write_ours(frames: np.ndarray, path: Path, *, fps: int) -> None:
    """As the pipeline writes: first 9 frames, then 8 each."""
    height, width = frames.shape[1:3]
    with VideoWriter(path, width=width, height=height, fps=fps, encoding=Encoding("h264")) as writer:
        for part in np.split(frames, range(9, len(frames), 8)):
            writer.write(part)
        writer.finish()


def write_preset(frames: np.ndarray, path: Path, *, fps: int, preset: str, crf: int) -> None:
    """By ffmpeg's libx264 with a preset and nothing else."""
    target = ["-c:v", "libx264", "-preset", preset, "-crf", str(crf), "-pix_fmt", "yuv420p", str(path)]
    command = [ffmpeg(), "-y", "-v", "error", *raw_input(frames, fps), *target]
    subprocess.run(command, input=frames.tobytes(), check=True)


def size_at(quality: float, points: Sequence[tuple[int, float]]) -> float:
    """Bytes at a PSNR, from the two (bytes, PSNR) around it.

    Raises:
        ValueError: no two enclose it.
    """
    ordered = sorted(points, key=lambda point: point[1])
    for (small, low), (large, high) in pairwise(ordered):
        if low <= quality <= high and low < high:
            share = (quality - low) / (high - low)
            return math.exp((1 - share) * math.log(small) + share * math.log(large))
    found = ", ".join(f"{high:.2f}" for _, high in ordered)
    raise ValueError(f"our file has {quality:.2f} dB, the preset's have {found}: give --crf values that enclose it")


def write_all(frames: np.ndarray, *, fps: int, preset: str, crfs: Sequence[int]) -> tuple[Point, dict[int, Point]]:
    """Our file, and the preset's by crf."""
    reference = planes(raw_input(frames, fps), len(frames), frames.tobytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.mp4"
        write_ours(frames, path, fps=fps)
        ours, others = point_of(path, reference), {}
        for crf in crfs:
            path = Path(folder) / f"{crf}.mp4"
            write_preset(frames, path, fps=fps, preset=preset, crf=crf)
            others[crf] = point_of(path, reference)
    return ours, others


def larger(ours: Point, others: Mapping[int, Point]) -> dict[str, float]:
    """How much larger our file is than the preset's, as a share of that one: at equal PSNR, and at our crf.

    Raises:
        ValueError: see `size_at`.
    """
    shares = {}
    for name in MEASURES:
        equal = size_at(ours.psnr[name], [(point.size, point.psnr[name]) for point in others.values()])
        shares[f"same {name}"] = ours.size / equal - 1
    crf = CODECS["h264"].crf
    return {**shares, **({"same crf": ours.size / others[crf].size - 1} if crf in others else {})}


def shown(name: str, point: Point) -> str:
    """A line of the table."""
    return f"  {name:16s} {point.size / 1e6:7.3f} MB" + "".join(f" {point.psnr[name]:8.2f} dB" for name in MEASURES)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu",))
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--preset", default="medium", help="x264's, to compare with (default: medium, its own default)")
    parser.add_argument("--crf", type=int, nargs="+", default=CRFS, help="of the preset (default: 1 3 5 7 9)")
    given = parser.parse_args(arguments)
    setting, figures = CODECS["h264"], {}
    print(
        f"{os.cpu_count()} cores; ours: {' '.join(setting.settings)} -crf {setting.crf}; PSNR of luma, of all samples"
    )
    clips = {video.name: decoded(video) for video in given.videos}
    if given.size == "tiny":
        clips["made up"] = (synthetic_clip(*CLIPS["tiny"]), 8)
    if not clips:
        parser.error("name videos, or --size tiny")
    for video, (frames, fps) in clips.items():
        ours, others = write_all(frames, fps=fps, preset=given.preset, crfs=given.crf)
        print(f"{video}, {len(frames)} frames", shown("ours", ours), sep="\n")
        for crf, point in others.items():
            print(shown(f"{given.preset}, crf {crf}", point))
        shares = larger(ours, others)
        print("  ours is larger by " + ", ".join(f"{share:.0%} ({name})" for name, share in shares.items()))
        files = {"ours": ours} | {f"crf {crf}": point for crf, point in others.items()}
        figures[video] = {"frames": len(frames), "larger": shares} | {
            name: {
                "bytes": point.size,
                "psnr": {key: db if math.isfinite(db) else None for key, db in point.psnr.items()},
            }
            for name, point in files.items()
        }
    finish({**machine(device_in(given)), "size": given.size, "videos": figures}, given)


if __name__ == "__main__":
    main()
