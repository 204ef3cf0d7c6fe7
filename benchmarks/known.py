"""What known pictures and videos cost: a picture that a video begins with, a clip that is changed or gone on with.

    python benchmarks/known.py [--weights FOLDER] [--picture FILE] [--video FILE] [--modes resident staged blocks]
    python benchmarks/known.py --size tiny --device cpu      # to try the benchmark itself

Without FOLDER random weights of the size are written first (21 GB at full size, in the folder for temporary files).
For each memory mode: seconds of a request with text alone, with `image`, and of `extend`; in the first one also with
`last_image`, with both, and with a changed video; stages and peaks of memory of each; whether the known latents of a
result are bit for bit what the VAE made of the picture; and the VAE's encoder alone. A picture or a video that is not
given is drawn. Two limits: `image` at most 60 ms more than text alone, `extend` at most 0.3 s more than one request. A
piece of `extend` is as long as its new seconds and the one it knows: "a second more" is a request of that length. The
last line is JSON.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_parts import WORKLOADS
from script import device_in, finish, machine, parser_of, write_json

from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.checkpoint.random_weights import make_random_weights
from kandinsky.config import MEMORY_MODES
from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.result import GenerationResult
from kandinsky.pipeline import Kandinsky4T2VPipeline

PROMPT = "A lighthouse in a storm."
IMAGE_LIMIT, EXTEND_LIMIT = 0.06, 0.3
SECONDS = {"full": 12, "tiny": 1}
CASES = ("text", "image", "extend", "last_image", "both", "strength 0.5", "a second more")
Case = Callable[[], Any]
Figures = dict[str, dict[str, Any]]


def seconds_of(make: Case, repeats: int) -> float:
    """Median of calls after one that loads and compiles."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        make()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def drawn(frames: int, width: int, height: int) -> np.ndarray:
    """A clip of moving stripes."""
    x = np.arange(width)[None, None] + 4 * np.arange(frames)[:, None, None] + np.arange(height)[None, :, None]
    return np.repeat((x % 256).astype(np.uint8)[..., None], 3, axis=-1)


def cases_of(pipe: Kandinsky4T2VPipeline, target: Path, given: argparse.Namespace) -> dict[str, Case]:
    """Calls by name; the first three are tried in every mode."""
    width, height = size_of(pipe)
    seconds = given.seconds or SECONDS[given.size]
    clip = drawn(seconds * 8 + 1, width, height)
    picture, video = given.picture or clip[0], given.video or clip
    size: dict[str, Any] = {"width": width, "height": height, "seed": 1}
    plain: dict[str, Any] = {**size, "time_length": seconds}
    longer: dict[str, Any] = {**size, "time_length": seconds + 1}
    fitted: dict[str, Any] = {**plain, "fit": "cover"}
    changed: dict[str, Any] = {**size, "fit": "cover", "video": clip, "strength": 0.5}
    return {
        "text": lambda: pipe(PROMPT, target, **plain),
        "image": lambda: pipe(PROMPT, target, **fitted, image=picture),
        "extend": lambda: pipe.extend(video, PROMPT, target, seconds=seconds, fit="cover", **size),
        "last_image": lambda: pipe(PROMPT, target, **fitted, last_image=picture),
        "both": lambda: pipe(PROMPT, target, **fitted, image=picture, last_image=picture),
        "strength 0.5": lambda: pipe(PROMPT, target, **changed),
        "a second more": lambda: pipe(PROMPT, target, **longer),
    }


def figures_of(cases: Mapping[str, Case], repeats: int) -> dict[str, Any]:
    """Seconds, stages and peaks of each case."""
    figures = {}
    for name, make in cases.items():
        first = time.perf_counter()
        result = make()
        first = time.perf_counter() - first
        row = {"first_s": first, "s": seconds_of(make, repeats)}
        if isinstance(result, GenerationResult):
            peaks = {stage: nbytes / 2**30 for stage, nbytes in result.peak_memory.items()}
            row |= {"stages_s": dict(result.timings), "peaks_gib": peaks}
        figures[name] = row
        print(f"{name:14} {row['s']:.3f} s, the first {first:.3f} s", flush=True)
    return figures


def is_bit_equal(pipe: Kandinsky4T2VPipeline) -> bool:
    """Whether a result of a second has the encoded picture as its first latent frame, and shows its own way back."""
    width, height = size_of(pipe)
    picture = drawn(1, width, height)
    asked: dict[str, Any] = {"image": picture[0], "time_length": 1, "seed": 1, "width": width, "height": height}
    latents = pipe(PROMPT, output_type="latent", **asked)
    assert isinstance(latents, torch.Tensor)
    assert pipe.vae is not None
    return torch.equal(latents[:1], pipe.vae.encode(torch.from_numpy(picture)).to(latents))


def size_of(pipe: Kandinsky4T2VPipeline) -> tuple[int, int]:
    """The size that figures are of."""
    sizes = pipe.model_set.sizes
    return (672, 384) if (672, 384) in sizes else sizes[0]


def encoding_of(pipe: Kandinsky4T2VPipeline) -> list[dict[str, Any]]:
    """Seconds and peak of the VAE's encoder alone, by number of frames and size: a warm call's."""
    rows = []
    assert pipe.vae is not None
    for width, height in dict.fromkeys((size_of(pipe), pipe.model_set.sizes[0])):
        for count in (1, 9, 25):
            clip, device = torch.from_numpy(drawn(count, width, height)), pipe.vae.device
            pipe.vae.encode(clip).cpu()
            before = allocated(device)
            started = time.perf_counter()
            pipe.vae.encode(clip).cpu()
            took = time.perf_counter() - started
            more = allocated(device, peak=True) - before
            rows.append({"frames": count, "size": [width, height], "s": took, "peak_gib": more / 2**30})
            print(f"encoding {count:3} frames of {width}x{height}: {took:.3f} s, {more / 2**30:.2f} GiB", flush=True)
    return rows


def allocated(device: torch.device, *, peak: bool = False) -> int:
    """Bytes on a GPU, now (from when on the peak counts) or at most; 0 on the CPU."""
    if device.type != "cuda":
        return 0
    if peak:
        return torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def measured(weights: Path, folder: Path, given: argparse.Namespace, device: torch.device) -> Figures:
    """All figures, by mode; written after each, too."""
    found: Figures = {}
    for number, mode in enumerate(given.modes):
        print(f"-- {mode}", flush=True)
        pipe = get_T2V_pipeline(device, cache_dir=weights, memory=mode, local_files_only=True, progress=False)
        cases = cases_of(pipe, folder / "v.mp4", given)
        if given.cases:
            cases = {name: cases[name] for name in given.cases}
        elif number:
            cases = dict(list(cases.items())[:3])
        if (given.seconds or SECONDS[given.size]) == pipe.model_set.max_seconds:
            cases.pop("a second more", None)
        found[mode] = {"bit_equal": is_bit_equal(pipe), "encoding": encoding_of(pipe)}
        found[mode] |= figures_of(cases, given.repeats)
        write_json(figures_with(found, given, device), given.json)
        del pipe, cases
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def figures_with(found: Figures, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What the line of JSON says."""
    limits = {"image_more_s": IMAGE_LIMIT, "extend_more_s": EXTEND_LIMIT}
    return {**machine(device), "size": given.size, "limits": limits, "modes": found}


def print_more(found: Figures) -> None:
    """By how much each mode's picture and extension cost more than text alone."""
    for mode, rows in found.items():
        for name, limit, other in (
            ("image", IMAGE_LIMIT, "text"),
            ("extend", EXTEND_LIMIT, "text"),
            ("extend", EXTEND_LIMIT, "a second more"),
        ):
            if name in rows and other in rows:
                more = rows[name]["s"] - rows[other]["s"]
                print(f"{mode}: {name} {more:.3f} s more than {other} (limit {limit})")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--picture", type=Path, help="for `image` and `last_image`")
    parser.add_argument("--video", type=Path, help="for `extend`")
    parser.add_argument("--weights", type=Path, help="a folder of weights instead of random ones")
    parser.add_argument("--modes", nargs="+", default=["resident"], choices=MEMORY_MODES)
    parser.add_argument("--cases", nargs="+", choices=CASES, help="instead of all, and the first three of later modes")
    parser.add_argument("--seconds", type=int, help="of a request; default: 12, at tiny size 1")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(arguments)
    device = device_in(given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = given.weights or folder / "weights"
        if given.weights is None:
            make_random_weights(weights, given.size, seed=0, device=str(device))
            if given.size == "tiny":
                write_model_set(weights, WORKLOADS["tiny"].model_set)
        found = measured(weights, folder, given, device)
    print_more(found)
    finish(figures_with(found, given, device), given)


if __name__ == "__main__":
    main()
