"""What known pictures and videos cost at full size: random weights, 672x384, one GPU, all in one call.

python benchmarks/known.py [--picture FILE] [--video FILE] [--size full|tiny] [--device cuda] [--seconds 12]

Said are seconds, stages and peaks of memory of a request with text alone, with `image`, with `last_image`, with both,
with `video` and a strength, and seconds of `extend`; and whether the known latents of the result are bit for bit those
that the VAE made. A picture or a video that is not given is drawn.
Limits: `image` costs at most 60 ms more than text alone, `extend` at most 0.3 s more than one request of its length.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kandinsky.checkpoint.random_weights import make_random_weights
from kandinsky.factory import get_T2V_pipeline
from kandinsky.pipeline import Kandinsky4T2VPipeline

PROMPT = "A lighthouse in a storm."
IMAGE_LIMIT, EXTEND_LIMIT = 0.06, 0.3
REPEATS = 3


def seconds_of(make: Callable[[], object], repeats: int = REPEATS) -> float:
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


def measure(pipe: Kandinsky4T2VPipeline, folder: Path, given: argparse.Namespace) -> dict[str, object]:
    """All figures."""
    width, height = (672, 384) if (672, 384) in pipe.model_set.sizes else pipe.model_set.sizes[0]
    clip = drawn(given.seconds * 8 + 1, width, height)
    picture, video = given.picture or clip[0], given.video or clip
    size = {"width": width, "height": height, "fit": "cover"}
    plain = {"width": width, "height": height, "time_length": given.seconds, "seed": 1}
    figures: dict[str, object] = {"device": str(pipe.dit.device), "size": f"{width}x{height}", "seconds": given.seconds}
    target = folder / "v.mp4"
    cases = {
        "text": plain,
        "image": {**plain, **size, "image": picture},
        "last_image": {**plain, **size, "last_image": picture},
        "both": {**plain, **size, "image": picture, "last_image": picture},
        "strength 0.5": {**size, "video": clip, "strength": 0.5, "seed": 1},
    }
    for name, arguments in cases.items():
        last = {}
        figures[name] = seconds_of(lambda: last.update(r=pipe(PROMPT, target, **arguments)), given.repeats)  # noqa: B023
        figures[f"{name}, stages"] = dict(last["r"].timings)
        figures[f"{name}, peaks GiB"] = {stage: nbytes / 2**30 for stage, nbytes in last["r"].peak_memory.items()}
        print(f"{name:14} {figures[name]:.3f} s", flush=True)
    longer = {**plain, "time_length": given.seconds + 1} if given.seconds < pipe.model_set.max_seconds else plain
    figures["text, a second longer"] = seconds_of(lambda: pipe(PROMPT, target, **longer), given.repeats)
    extended = folder / "extended.mp4"

    def extend() -> None:
        pipe.extend(video, PROMPT, extended, seconds=given.seconds, seed=1, **size)

    figures["extend"] = seconds_of(extend, given.repeats)
    latents = pipe(PROMPT, output_type="latent", **{**plain, **size, "image": clip[0]})
    assert isinstance(latents, torch.Tensor)
    assert pipe.vae is not None
    encoded = pipe.vae.encode(torch.from_numpy(clip[:1]))
    figures["known latents bit-equal"] = torch.equal(latents[:1], encoded.to(latents))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--size", default="full", choices=("full", "tiny"))
    parser.add_argument("--weights", type=Path, help="a folder of weights instead of random ones")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = given.weights
        if weights is None:
            weights = folder / "weights"
            make_random_weights(weights, given.size, seed=0, device=given.device)
        pipe = get_T2V_pipeline(given.device, cache_dir=weights, local_files_only=True, progress=False)
        figures = measure(pipe, folder, given)
    image, text, extend, one = (figures[name] for name in ("image", "text", "extend", "text, a second longer"))
    assert isinstance(image, float)
    assert isinstance(text, float)
    assert isinstance(extend, float)
    assert isinstance(one, float)
    print(f"image: {1000 * (image - text):.0f} ms more than text alone (limit {1000 * IMAGE_LIMIT:.0f})")
    print(f"extend by {given.seconds} s: {extend - text:.3f} s more than a request of {given.seconds} s")
    print(f"  and {extend - one:.3f} s more than one of a second more, as its piece is (limit {EXTEND_LIMIT})")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
