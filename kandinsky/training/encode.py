"""Training data from videos: a folder of them with captions, to shards of latents and text embeddings.

    python -m kandinsky.training.encode VIDEOS OUT --weights W

VIDEOS/captions.jsonl has a line `{"file": "a.mp4", "caption": "..."}` for each video, its file relative to VIDEOS. A
file or a line that is of no use is named on stderr and in OUT/report.jsonl, and the others go on. What stands in OUT's
shards is not done again, so that the same command goes on where it was stopped; files of the report are tried again.
Latents are the mean of the VAE's posterior. One process writes to a folder.
"""

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.loading.components import load_text_encoder, load_vae
from kandinsky.loading.devices import default_dtype
from kandinsky.training.data import Encoded, ShardDataset, write_shards
from kandinsky.training.videos import UnreadableVideoError, read_clip

CAPTIONS, REPORT, SOURCE = "captions.jsonl", "report.jsonl", "encoding.json"
PER_SHARD = 64
READ_AHEAD = 4


@dataclass(frozen=True)
class Entry:
    """A line of the captions: the file as it is named there, and what it shows."""

    file: str
    caption: str


class Report:
    """`report.jsonl`: what was skipped in this run, and why; told on stderr too."""

    def __init__(self, folder: Path):
        self.path, self.count = folder / REPORT, 0
        self.path.write_text("")

    def add(self, name: str, error: str) -> None:
        self.count += 1
        tqdm.write(f"skipped {name}: {error}", file=sys.stderr)
        with self.path.open("a") as file:
            file.write(json.dumps({"file": name, "error": error}) + "\n")


def read_captions(path: Path, report: Report) -> list[Entry]:
    """Entries of a captions file; lines that are none are reported.

    Raises:
        FileNotFoundError: there is no such file.
    """
    found: dict[str, Entry] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is None:
            report.add(f"{path.name}:{number}", 'allowed is {"file": "...", "caption": "..."}')
        elif entry.file in found:
            report.add(f"{path.name}:{number}", f"{entry.file} is listed before")
        else:
            found[entry.file] = entry
    return list(found.values())


def _entry(line: str) -> Entry | None:
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return None
    good = isinstance(values, dict) and all(isinstance(values.get(key), str) for key in ("file", "caption"))
    return Entry(values["file"], values["caption"]) if good else None


def done_already(folder: Path) -> set[str]:
    """Ids of the clips in a folder's shards."""
    return {item.id for item in ShardDataset(folder).items} if any(folder.glob("shard-*.safetensors")) else set()


def ahead(read: Callable[[Any], Any], items: Iterable[Any], *, count: int = READ_AHEAD) -> Iterator[tuple[Any, Future]]:
    """Items with what `read` makes of them, in order; threads read the next ones while one is used."""
    waiting: deque[tuple[Any, Future]] = deque()
    with ThreadPoolExecutor(max_workers=count) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > count:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


class Encoder:
    """VAE and text embedder of a model set, on one device.

    Raises:
        FileNotFoundError: weights are missing.
        CheckpointError: they are damaged.
    """

    def __init__(self, weights: Path, device: torch.device, model_set: ModelSet):
        place = {"device": device, "dtype": default_dtype(device)}
        self.vae = load_vae(weights / "vae", **place)
        tokens = model_set.text_tokens
        self.t5 = load_text_encoder(weights / "text_encoder", weights / "tokenizer", text_tokens=tokens, **place)

    @torch.inference_mode()
    def __call__(self, entry: Entry, frames: Tensor) -> Encoded:
        return Encoded(entry.file, entry.caption, self.vae.encode(frames), self.t5(entry.caption))


def check_source(folder: Path, weights: Path, model_set: ModelSet) -> None:
    """Write down what a folder's latents are made with, or compare with what stands there.

    Raises:
        ValueError: it was begun with other weights: latents of two VAEs don't mix.
    """
    now: dict[str, Any] = {part: fingerprint(open_checkpoint(weights / part)) for part in ("vae", "text_encoder")}
    now |= {"fps": model_set.fps, "text_tokens": model_set.text_tokens}
    file = folder / SOURCE
    if file.exists() and (then := json.loads(file.read_text())) != now:
        raise ValueError(f"out={str(folder)!r} was begun with {then}, weights={str(weights)!r} are {now}")
    file.write_text(json.dumps(now) + "\n")


def encode(
    videos: Path,
    out: Path,
    *,
    weights: Path,
    device: torch.device,
    seconds: Sequence[int] | None = None,
    per_shard: int = PER_SHARD,
) -> tuple[int, int]:
    """Encode what `out` does not have yet; returns how many clips were written, and how many entries skipped.

    Args:
        seconds: allowed lengths; see `videos.read_clip`.
        per_shard: clips in a file; so many are lost at most when the run is stopped.

    Raises:
        ValueError: a length that the model set does not allow, or `out` was begun with other weights.
        FileNotFoundError: no captions, or no weights.
    """
    model_set = read_model_set(weights) or FLASH_512
    allowed = range(1, model_set.max_seconds + 1)
    if seconds is not None and not (seconds and set(seconds) <= set(allowed)):
        raise ValueError(f"seconds={list(seconds)}: allowed are 1 to {model_set.max_seconds}")
    if not (videos / CAPTIONS).is_file():
        raise FileNotFoundError(f"{videos / CAPTIONS}: no such file")
    out.mkdir(parents=True, exist_ok=True)
    check_source(out, weights, model_set)
    report = Report(out)
    done = done_already(out)
    entries = [entry for entry in read_captions(videos / CAPTIONS, report) if entry.file not in done]

    def clips() -> Iterator[Encoded]:
        encoder = Encoder(weights, device, model_set)
        reading = ahead(lambda entry: read_clip(videos / entry.file, model_set, seconds=seconds), entries)
        for entry, frames in tqdm(reading, total=len(entries), desc="clips"):
            try:
                yield encoder(entry, frames.result())
            except UnreadableVideoError as error:
                report.add(entry.file, str(error))

    return write_shards(clips() if entries else (), out, per_shard=per_shard), report.count


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help=f"folder of videos and {CAPTIONS}")
    parser.add_argument("out", type=Path, help="folder of shards")
    parser.add_argument("--weights", type=Path, required=True, help="folder with vae, text_encoder and tokenizer")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=int, nargs="+", help="allowed lengths; default: every whole second")
    parser.add_argument("--per-shard", type=int, default=PER_SHARD)
    given = parser.parse_args(arguments)
    place = {"weights": given.weights, "device": torch.device(given.device)}
    written, skipped = encode(given.videos, given.out, **place, seconds=given.seconds, per_shard=given.per_shard)
    print(f"{written} clips in {given.out}, {skipped} skipped ({given.out / REPORT})")


if __name__ == "__main__":
    main(sys.argv[1:])
