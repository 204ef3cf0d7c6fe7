"""Frames to a video or image file, through the ffmpeg that imageio-ffmpeg brings.

Frames are piped in as they come, into a temporary file beside the target that replaces it only when it is complete:
a reader of the target never sees half a video, and a failure leaves what stood there before.
imageio-ffmpeg's own writer hides ffmpeg's exit status and messages, so the process is started here.
"""

import os
import subprocess
import tempfile
import uuid
from contextlib import suppress
from glob import escape
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from types import TracebackType

import numpy as np
from PIL import Image

VIDEO_ENDINGS = (".mp4", ".mov", ".mkv")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
CRF = 5
SPEED = ("-preset", "ultrafast", "-tune", "zerolatency")
"""At this crf as good as x264's default to within a decibel, and 15 to 40 % larger; what matters here is that it never
holds up the decoding and has no look-ahead left to encode after the last frame (docs/benchmarks.md)."""
QUEUED_CHUNKS = 4


class VideoError(RuntimeError):
    """ffmpeg could not write the video; the message holds what it said."""


def ffmpeg() -> str:
    """Path of the ffmpeg program.

    Raises:
        ValueError: there is none.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return get_ffmpeg_exe()
    except RuntimeError as error:
        raise ValueError(f"no ffmpeg to write videos with: {error}") from error


def check_target(save_path: str | os.PathLike[str], endings: tuple[str, ...] = VIDEO_ENDINGS) -> Path:
    """Check that a file with one of `endings` can be written to `save_path`, and return it as a path.

    Raises:
        ValueError: wrong ending, a folder that is missing or cannot be written, or no encoder.
    """
    if not isinstance(save_path, str | os.PathLike) or not isinstance(os.fspath(save_path), str):
        raise ValueError(f"save_path={save_path!r}: allowed is a path of text")
    path = Path(save_path)
    if path.suffix.lower() not in endings:
        raise ValueError(f"save_path={str(path)!r}: must end with one of {', '.join(endings)}")
    # os.path's, because those of Path raise OSError for a name that is too long.
    if os.path.isdir(path):  # noqa: PTH112
        raise ValueError(f"save_path={str(path)!r} is a folder; a file name is needed")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise ValueError(f"save_path={str(path)!r}: the folder {str(path.parent)!r} does not exist; create it first")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise ValueError(f"save_path={str(path)!r} cannot be the name of a file here: {error}") from error
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"save_path={str(path)!r}: cannot write in {str(path.parent)!r}: {error.strerror}") from error
    if endings is VIDEO_ENDINGS:
        ffmpeg()
    return path


def partial_path(path: Path) -> Path:
    """A hidden name beside `path`, with its ending, for what is not yet complete."""
    return path.with_name(f".{path.stem[:16]}-{uuid.uuid4().hex[:8]}.partial{path.suffix}")


def remove_partials(path: Path) -> None:
    """Remove what killed processes left unfinished of `path`; no process may be writing it."""
    for partial in path.parent.glob(f".{escape(path.stem[:16])}-{'[0-9a-f]' * 8}.partial{path.suffix}"):
        partial.unlink(missing_ok=True)


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image that replaces `path` only when it is complete."""
    partial = partial_path(path)
    try:
        image.save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class VideoWriter:
    """A context manager that writes uint8 frames `[frames, height, width, 3]` as H.264, yuv420p.

    A thread feeds the encoder, so that frames are encoded while the next ones are made; only when `QUEUED_CHUNKS` calls
    of `write` wait for the encoder does the next one wait too. `finish` completes the file and moves it to its place;
    leaving the context without it removes what was written.
    """

    def __init__(self, path: Path, *, width: int, height: int, fps: int):
        self.path = path
        self.shape = (height, width, 3)
        self.num_frames = 0
        self._partial = partial_path(path)
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        codec = ["-c:v", "libx264", *SPEED, "-crf", str(CRF), "-pix_fmt", "yuv420p"]
        self._process = subprocess.Popen(
            [ffmpeg(), "-y", "-v", "error", *source, "-an", *codec, f"file:{self._partial}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            start_new_session=True,  # Ctrl-C is ours to handle: it must not reach ffmpeg before us
        )
        self._queue: Queue[bytes | None] = Queue(QUEUED_CHUNKS)
        self._failure: OSError | None = None
        self._thread = Thread(target=self._feed, name="video encoder", daemon=True)
        self._thread.start()

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
        self._thread.join()
        if self._process.wait() != 0 or self._failure is not None:
            raise self._error()
        os.replace(self._partial, self.path)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(Full):  # a full queue has woken the thread, whose write to the dead encoder then fails
            self._queue.put_nowait(None)
        self._thread.join()
        self._messages.close()
        self._partial.unlink(missing_ok=True)

    def _feed(self) -> None:
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                while (chunk := self._queue.get()) is not None:
                    pipe.write(chunk)
        except OSError as error:  # raised to whoever writes next
            self._failure = error

    def _put(self, chunk: bytes | None) -> None:
        while self._failure is None:
            try:
                return self._queue.put(chunk, timeout=0.1)
            except Full:
                continue
        self._process.wait()
        raise self._error()

    def _error(self) -> VideoError:
        self._messages.seek(0)
        said = self._messages.read().decode(errors="replace").strip()
        return VideoError(f"ffmpeg failed to write {self.path}: {said or f'exit status {self._process.returncode}'}")
