"""Frames to a video file, through the ffmpeg that imageio-ffmpeg brings, with a comment inside; and the comment back.

Frames are piped in as they come, into a temporary file beside the target that replaces it only when it is complete:
a reader of the target never sees half a video, and a failure leaves what stood there before.
imageio-ffmpeg's own writer hides ffmpeg's exit status and messages, so the process is started here.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from types import MappingProxyType, TracebackType

import numpy as np

from kandinsky.atomic import Partial
from kandinsky.errors import VideoError
from kandinsky.ffmpeg.program import ffmpeg

QUEUED_CHUNKS = 4
MESSAGE_BYTES = 65536
COLOURS = ("-colorspace", "smpte170m", "-color_range", "tv")
"""How ffmpeg turns RGB into YUV where nobody says otherwise (BT.601's matrix, 16 to 235), said in the file, so that no
player has to guess. Whose RGB it is stays unsaid: it is sRGB, as players take it."""
TAGS_SUFFIX = ".ffmetadata"
"""Of the hidden file beside the target that hands ffmpeg the comment."""


@dataclass(frozen=True)
class Codec:
    """A codec as we use it: ffmpeg's encoder, its default, best and largest crf, and settings.

    `best_crf` is the best that players understand: x264's 0 is lossless, in a profile that few of them have.
    """

    encoder: str
    crf: int
    best_crf: int
    max_crf: int
    settings: tuple[str, ...]


CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        # Files of the model's videos are 37 to 76 % larger than x264's default makes at the same crf, and 31 to 67 % at
        # equal PSNR (benchmarks/encoding.py). What matters here is that it never holds up the decoding and has no
        # look-ahead left to encode after the last frame (docs/benchmarks.md).
        "h264": Codec("libx264", 5, 1, 51, ("-preset", "ultrafast", "-tune", "zerolatency")),
        # hvc1: without this mark Apple's players refuse the file.
        "hevc": Codec(
            "libx265",
            10,
            0,
            51,
            ("-preset", "ultrafast", "-tune", "zerolatency", "-x265-params", "log-level=error", "-tag:v", "hvc1"),
        ),
        "vp9": Codec("libvpx-vp9", 15, 0, 63, ("-b:v", "0", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1")),
    }
)


@dataclass(frozen=True)
class Encoding:
    """A codec of `CODECS` and its quality."""

    codec: str = "h264"
    crf: int = CODECS["h264"].crf


@cache
def _encoders(program: str) -> frozenset[str]:
    """Names of the encoders that an ffmpeg has."""
    listed = subprocess.run([program, "-v", "error", "-encoders"], capture_output=True, text=True, check=False).stdout
    return frozenset(re.findall(r"^ V\S* (\S+)", listed, flags=re.MULTILINE))


def codecs_here() -> list[str]:
    """Those of `CODECS` that ffmpeg has an encoder for.

    Raises:
        ValueError: there is no ffmpeg.
    """
    found = _encoders(ffmpeg())
    return [name for name, codec in CODECS.items() if codec.encoder in found]


def check_encoder(codec: str) -> None:
    """Refuse a codec of `CODECS` that ffmpeg has no encoder for.

    Raises:
        ValueError: names those that it has.
    """
    found = codecs_here()
    if codec not in found:
        here = ", ".join(map(repr, found))
        raise ValueError(
            f"codec={codec!r}: {ffmpeg()} has no {CODECS[codec].encoder}; allowed with it: {here or 'none'}"
        )


def escape(text: str) -> str:
    """`text` as the value of a tag in ffmpeg's metadata file."""
    return re.sub(r"([=;#\\\n])", r"\\\1", text)


def read_comment(path: Path) -> str | None:
    """The comment of a video file; None if it has none or is no video.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    command = [ffmpeg(), "-v", "error", "-i", f"file:{path}", "-f", "ffmetadata", "-"]
    said = subprocess.run(command, capture_output=True, check=False).stdout
    tag = re.search(rb"^comment=((?:[^\\\n]|\\.)*)$", said, flags=re.MULTILINE | re.IGNORECASE | re.DOTALL)
    return tag and re.sub(rb"\\(.)", rb"\1", tag[1], flags=re.DOTALL).decode()


class VideoWriter:
    """A context manager that writes uint8 frames `[frames, height, width, 3]` as yuv420p.

    A thread feeds the encoder, so that frames are encoded while the next ones are made; only when `QUEUED_CHUNKS` calls
    of `write` wait for the encoder does the next one wait too. `finish` completes the file and moves it to its place;
    leaving the context without it removes what was written.

    Args:
        path: its ending tells the container.
        width, height: pixels.
        fps: frames per second that the file plays at.
        encoding: codec and quality.
        comment: text for the file's metadata, where it is kept as it is; without carriage returns and null characters,
            at which ffmpeg would end it. A record, as JSON, has neither.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        fps: int | Fraction,
        encoding: Encoding = Encoding(),
        comment: str | None = None,
    ):
        self.path = path
        self.shape = (height, width, 3)
        self.num_frames = 0
        self._partial = Partial(path)
        self._tags = tags_file(path, comment)
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        tags = ["-f", "ffmetadata", "-i", f"file:{self._tags.path}", "-map", "0:v", "-map_metadata", "1"]
        codec = CODECS[encoding.codec]
        target = ["-c:v", codec.encoder, *codec.settings, "-crf", str(encoding.crf), "-pix_fmt", "yuv420p", *COLOURS]
        if path.suffix.lower() == ".mov":  # whose usual comment ends at 65,535 bytes
            target += ["-movflags", "use_metadata_tags"]
        if path.suffix.lower() in (".mkv", ".webm"):  # Matroska's marks are drawn at random: same video, other bytes
            target += ["-fflags", "+bitexact"]
        try:
            self._process = subprocess.Popen(
                [ffmpeg(), "-y", "-v", "error", *source, *tags, *target, f"file:{self._partial.path}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours to handle: it must not reach ffmpeg before us
            )
        except BaseException:
            self._tags.discard()
            raise
        self._queue: Queue[bytes | None] = Queue(QUEUED_CHUNKS)
        self._failure: OSError | None = None
        self._said = bytearray()
        self._threads = [
            Thread(target=self._feed, name="video encoder", daemon=True),
            Thread(target=self._listen, name="video encoder's messages", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 `[frames, height, width, 3]`; they are copied.

        Raises:
            VideoError: ffmpeg failed.
        """
        assert frames.dtype == np.uint8 and frames.shape[1:] == self.shape
        self._put(frames.tobytes())
        self.num_frames += len(frames)

    def finish(self) -> None:
        """Wait for the encoder and put the complete file in its place.

        Raises:
            VideoError: ffmpeg failed.
        """
        self._put(None)
        self._threads[0].join()
        if self._process.wait() != 0 or self._failure is not None:
            raise self._error()
        self._tags.discard()  # before: whoever is killed here leaves no trace beside a finished video
        self._partial.commit()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(Full):  # a full queue has woken the thread, whose write to the dead encoder then fails
            self._queue.put_nowait(None)
        for thread in self._threads:
            thread.join()
        self._tags.discard()
        self._partial.discard()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                while (chunk := self._queue.get()) is not None:
                    pipe.write(chunk)
        except OSError as error:  # raised to whoever writes next
            self._failure = error

    def _listen(self) -> None:
        """Keep the beginning of what ffmpeg says; all of it is read, or a talkative one would wait for ever."""
        assert self._process.stderr is not None
        with self._process.stderr as pipe:
            while part := pipe.read(4096):
                self._said += part[: MESSAGE_BYTES - len(self._said)]

    def _put(self, chunk: bytes | None) -> None:
        while self._failure is None:
            try:
                return self._queue.put(chunk, timeout=0.1)
            except Full:
                continue
        self._process.wait()
        raise self._error()

    def _error(self) -> VideoError:
        self._threads[1].join()
        said = self._said.decode(errors="replace").strip()
        return VideoError(f"ffmpeg failed to write {self.path}: {said or f'exit status {self._process.returncode}'}")


def tags_file(target: Path, comment: str | None) -> Partial:
    """A file beside the target with `comment` for ffmpeg: an argument may be too long, and others can read it."""
    tags = Partial(target.with_suffix(TAGS_SUFFIX))
    content = ";FFMETADATA1\n" + (f"comment={escape(comment)}\n" if comment else "")
    try:
        with os.fdopen(
            os.open(tags.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8", newline="\n"
        ) as file:
            file.write(content)
    except BaseException:  # a full disk, say: what was begun goes
        tags.discard()
        raise
    return tags
