"""What known pictures and videos cost: a picture that a video begins with, a clip that is changed or gone on with.

    python benchmarks/known.py [--weights FOLDER] [--picture FILE] [--video FILE] [--modes resident staged blocks]
    python benchmarks/known.py --size tiny --device cpu      # to try the benchmark itself

Without FOLDER random weights of the size are written first (21 GB at full size, in the folder for temporary files).
For each memory mode: seconds of a request with text alone, with `image`, and of `extend`; in the first one also with
`last_image`, with both, and with a changed video; stages and peaks of memory of each; and whether the known latents of
a result are bit for bit what the VAE made of the picture. A picture or a video that is not given is drawn. Two limits:
`image` at most 60 ms more than text alone, `extend` at most 0.3 s more than one request. The last line is JSON.
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
from script import device_in, finish, machine, parser_of

from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.checkpoint.random_weights import make_random_weights
from kandinsky.config import MEMORY_MODES
from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.result import GenerationResult
from kandinsky.pipeline import Kandinsky4T2VPipeline

PROMPT = "A lighthouse in a storm."
IMAGE_LIMIT, EXTEND_LIMIT = 0.06, 0.3
SECONDS = {"full": 12, "tiny": 1}
Case = Callable[[], Any]


def seconds_of(make: Case, repeats: int) -> float:
    """Median, after one call that loads and compiles."""
    make()
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
    sizes = pipe.model_set.sizes
    width, height = (672, 384) if (672, 384) in sizes else sizes[0]
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


def is_bit_equal(pipe: Kandinsky4T2VPipeline, seconds: int) -> bool:
    """Whether the first latent frame of a result is the encoded picture."""
    width, height = pipe.model_set.sizes[0]
    picture = drawn(1, width, height)
    latents = pipe(PROMPT, image=picture[0], time_length=seconds, seed=1, output_type="latent")
    assert isinstance(latents, torch.Tensor)
    assert pipe.vae is not None
    return torch.equal(latents[:1], pipe.vae.encode(torch.from_numpy(picture)).to(latents))


def measured(weights: Path, folder: Path, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All figures, by mode."""
    found = {}
    for number, mode in enumerate(given.modes):
        print(f"-- {mode}", flush=True)
        pipe = get_T2V_pipeline(device, cache_dir=weights, memory=mode, local_files_only=True, progress=False)
        cases = cases_of(pipe, folder / "v.mp4", given)
        if number:
            cases = dict(list(cases.items())[:3])
        elif (given.seconds or SECONDS[given.size]) == pipe.model_set.max_seconds:
            del cases["a second more"]
        equal = is_bit_equal(pipe, given.seconds or SECONDS[given.size])
        found[mode] = {"bit_equal": equal, **figures_of(cases, given.repeats)}
        del pipe, cases
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--picture", type=Path, help="for `image` and `last_image`")
    parser.add_argument("--video", type=Path, help="for `extend`")
    parser.add_argument("--weights", type=Path, help="a folder of weights instead of random ones")
    parser.add_argument("--modes", nargs="+", default=["resident"], choices=MEMORY_MODES)
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
    for mode, rows in found.items():
        more = rows["image"]["s"] - rows["text"]["s"], rows["extend"]["s"] - rows["text"]["s"]
        print(f"{mode}: image {1000 * more[0]:.0f} ms more than text alone (limit {1000 * IMAGE_LIMIT:.0f}), ", end="")
        print(f"extend {more[1]:.3f} s more than a request of its seconds (limit {EXTEND_LIMIT})")
    limits = {"image_more_s": IMAGE_LIMIT, "extend_more_s": EXTEND_LIMIT}
    finish({**machine(device), "size": given.size, "limits": limits, "modes": found}, given)


if __name__ == "__main__":
    main()
