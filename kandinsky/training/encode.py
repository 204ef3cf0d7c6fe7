"""Training data from videos: a folder of them with captions, to shards of latents and text embeddings.

    python -m kandinsky.training.encode VIDEOS OUT --weights W

VIDEOS/captions.jsonl has a line `{"file": "a.mp4", "caption": "..."}` for each video, its file in VIDEOS; or, without
such a file, each video `a.mp4` has its caption in `a.txt`. A file or a
line that is of no use is named on stderr and in OUT/report.jsonl, and the others go on. Whatever ends a run, but for
`kill -9` and a power cut, the clips that are encoded are written first. What stands in OUT's shards is not done again,
so that the same command goes on where it was stopped; files of the report are tried again. Latents are the mean of the
VAE's posterior. One process writes to a folder.
"""

import argparse
import glob
import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky.atomic import write_text
from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.errors import KandinskyError, UnreadableVideoError
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.loading.components import load_text_encoder, load_vae
from kandinsky.loading.devices import default_dtype, device_argument
from kandinsky.training.data import Encoded, ids_in, write_shards
from kandinsky.training.videos import read_clip
from kandinsky.user_files.lines import Line, each_line, is_utf8, parse_json, read_json, read_text
from kandinsky.user_files.paths import path_argument

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
        self.path.write_bytes(b"")

    def add(self, name: str, error: str) -> None:
        self.count += 1
        # Names and captions are anyone's: neither half a surrogate pair nor a terminal's commands are printed.
        tqdm.write(_printable(f"skipped {name}: {error}"), file=sys.stderr)
        with self.path.open("a", encoding="ascii") as file:
            file.write(json.dumps({"file": name, "error": error}) + "\n")


def _printable(text: str) -> str:
    return text if text.isprintable() and is_utf8(text) else ascii(text)[1:-1]


def read_captions(path: Path, report: Report) -> list[Entry]:
    """Entries of a captions file; lines that are none are reported.

    Raises:
        OSError: it cannot be read.
        ValueError: it is in another encoding than UTF-8, not only a line of it.
    """
    found: dict[str, Entry] = {}
    for line in each_line(path):
        if line.fault is None and not line.text.strip():
            continue
        try:
            entry = _entry(line)
            if entry.file in found:
                raise ValueError(f"{entry.file} is listed before")
        except ValueError as error:
            report.add(f"{path.name}:{line.number}", str(error))
        else:
            found[entry.file] = entry
    return list(found.values())


def beside(videos: Path) -> list[Entry]:
    """Entries of a folder without a captions file: each `a.txt` is the caption of another file `a.*` beside it."""
    found = []
    for text in sorted(videos.glob("*.txt")):
        clips = [path for path in sorted(videos.glob(f"{glob.escape(text.stem)}.*")) if path.suffix != ".txt"]
        found += [Entry(path.name, read_text(text).strip()) for path in clips[:1]]
    return found


def _entry(line: Line) -> Entry:
    """What a line says.

    Raises:
        ValueError: it is none of the captions', or names a file elsewhere.
    """
    if line.fault is not None:
        raise ValueError(line.fault)
    values = parse_json(line.text)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("file", "caption")):
        raise ValueError('allowed is {"file": "...", "caption": "..."}')
    for key in ("file", "caption"):
        if not is_utf8(values[key]):
            raise ValueError(f"{key}={values[key]!r}: allowed is text that UTF-8 can hold")
    file = Path(values["file"])
    # Links are followed: whoever put them into the folder may.
    if file.anchor or ".." in file.parts or "\0" in values["file"] or not file.name:
        raise ValueError(f"file={values['file']!r}: allowed is a path inside of the captions' folder")
    return Entry(values["file"], values["caption"])


def ahead(
    read: Callable[[Any], Any], items: Iterable[Any], *, count: int = READ_AHEAD
) -> Generator[tuple[Any, Future]]:
    """Items with what `read` makes of them, in order; threads read the next ones while one is used."""
    waiting: deque[tuple[Any, Future]] = deque()
    pool = ThreadPoolExecutor(max_workers=count)
    try:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > count:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        # Not waited for: at an end in the middle what is encoded is written first, while there is time.
        pool.shutdown(wait=False, cancel_futures=True)


class Encoder:
    """VAE and text embedder of a model set, on one device.

    Raises:
        FileNotFoundError: weights are missing.
        CheckpointError: they are damaged.
    """

    def __init__(self, weights: Path, device: torch.device, model_set: ModelSet):
        place = {"device": device, "dtype": default_dtype(device)}
        self.vae = load_vae(place_of(weights, "vae"), **place)
        tokens = model_set.text_tokens
        folders = place_of(weights, "text_encoder"), place_of(weights, "tokenizer")
        self.t5 = load_text_encoder(*folders, text_tokens=tokens, **place)

    @torch.inference_mode()
    def __call__(self, entry: Entry, frames: Tensor) -> Encoded:
        return Encoded(entry.file, entry.caption, self.vae.encode(frames), self.t5(entry.caption))


def check_source(folder: Path, weights: Path, model_set: ModelSet) -> None:
    """Write down what a folder's latents are made with, or compare with what stands there.

    Raises:
        ValueError: it was begun with other weights: latents of two VAEs don't mix; or what stands there is no JSON.
    """
    parts = ("vae", "text_encoder")
    now: dict[str, Any] = {part: fingerprint(open_checkpoint(place_of(weights, part))) for part in parts}
    now |= {"fps": model_set.fps, "text_tokens": model_set.text_tokens}
    file = folder / SOURCE
    if file.exists() and (then := read_json(file)) != now:
        raise ValueError(f"out={str(folder)!r} was begun with {then}, weights={str(weights)!r} are {now}")
    write_text(file, json.dumps(now) + "\n")


def encoded(
    entries: Sequence[Entry],
    read: Callable[[Entry], Tensor],
    encoder: Callable[[Entry, Tensor], Encoded],
    report: Report,
) -> Iterator[Encoded]:
    """A clip of each entry, in order; entries that give none are reported."""
    with closing(ahead(read, entries)) as reading:
        for entry, frames in tqdm(reading, total=len(entries), desc="clips"):
            try:
                clip = encoder(entry, frames.result())
            except UnreadableVideoError as error:
                report.add(entry.file, str(error))
            except torch.OutOfMemoryError:
                report.add(entry.file, "not enough memory for a clip of its size and length")
            else:
                yield clip


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
        per_shard: clips in a file; so many are lost at most when the process is killed.

    Raises:
        ValueError: a length that the model set does not allow, no clip in a file, no ffmpeg, `out` was begun with
            other weights, or the captions are in another encoding than UTF-8.
        FileNotFoundError: no captions, or no weights.
    """
    model_set = read_model_set(weights) or FLASH_512
    allowed = range(1, model_set.max_seconds + 1)
    if seconds is not None and not (seconds and set(seconds) <= set(allowed)):
        raise ValueError(f"seconds={list(seconds)}: allowed are 1 to {model_set.max_seconds}")
    if per_shard < 1:
        raise ValueError(f"per_shard={per_shard}: allowed is 1 and more")
    listed = (videos / CAPTIONS).is_file()
    apart = [] if listed else beside(videos)
    if not listed and not apart:
        raise FileNotFoundError(f"{videos / CAPTIONS}: no such file, nor a caption in a .txt beside a video")
    ffmpeg()  # without it every file would be refused, after the weights were loaded
    out.mkdir(parents=True, exist_ok=True)
    check_source(out, weights, model_set)
    report = Report(out)
    done = ids_in(out)
    found = read_captions(videos / CAPTIONS, report) if listed else apart
    entries = [entry for entry in found if entry.file not in done]

    if not entries:
        return 0, report.count
    encoder = Encoder(weights, device, model_set)
    clips = encoded(entries, lambda entry: read_clip(videos / entry.file, model_set, seconds=seconds), encoder, report)
    return write_shards(clips, out, per_shard=per_shard), report.count


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=path_argument, help=f"folder of videos and {CAPTIONS}")
    parser.add_argument("out", type=path_argument, help="folder of shards")
    parser.add_argument(
        "--weights", type=path_argument, required=True, help="folder with vae, text_encoder and tokenizer"
    )
    parser.add_argument("--device", type=device_argument, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=int, nargs="+", help="allowed lengths; default: every whole second")
    parser.add_argument("--per-shard", type=int, default=PER_SHARD)
    given = parser.parse_args(arguments)
    interrupt_at_the_end()
    try:
        place = {"weights": given.weights, "device": given.device}
        written, skipped = encode(given.videos, given.out, **place, seconds=given.seconds, per_shard=given.per_shard)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, KandinskyError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ValueError) else 1) from error
    print(f"{written} clips in {given.out}, {skipped} skipped ({given.out / REPORT})")


def interrupt_at_the_end() -> None:
    """Let what usually ends a process without a word (`kill`, a closed terminal) interrupt it as Ctrl-C does."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


if __name__ == "__main__":
    main(sys.argv[1:])
