"""Sampled latents in a file while what they are for is unfinished, so that no failure loses the sampling.

A safetensors file, in the dtype that was sampled, with everything that it takes to finish: `kandinsky resume FILE` or
`pipe.decode_to(FILE)`. It is written on a thread while decoding runs, so that even a killed process leaves it, and
removed when the result is in its place.
"""

import dataclasses
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kandinsky.atomic import create_new, short
from kandinsky.config import KERNELS, PRECISIONS
from kandinsky.errors import DecodeError, RecordError, shown
from kandinsky.output.record import DTYPES, Record

SUFFIX = ".latents.safetensors"
Rescue = Callable[[Callable[[], object]], AbstractContextManager[None]]
"""(what to call before this process is ended from outside) -> a context in which it will be."""


def no_rescue(_save: Callable[[], object]) -> AbstractContextManager[None]:
    """For a process that nobody else ends."""
    return nullcontext()


@dataclass(frozen=True)
class VaeSource:
    """Which VAE decodes: its folder, device, dtype (`bfloat16` ...), and the rest as `get_T2V_pipeline` takes them."""

    path: str
    device: str
    dtype: str
    memory_saving: bool
    kernels: str = "auto"
    precision: str = "exact"


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Latents and what they are for.

    Args:
        latents: `[T, H, W, C]` on the CPU, as sampled.
        record: of the generation.
        save_path: where the result goes; None where frames are returned.
        metadata: whether the record goes into the result.
        vae: None for a pipeline that was put together by hand.
    """

    latents: Tensor
    record: Record
    save_path: Path | None
    metadata: bool
    vae: VaeSource | None


def save_unfinished(unfinished: Unfinished) -> Path:
    """Write the file beside its target, or where that is impossible in the folder for temporary files or at home.

    The name is the target's with `.latents.safetensors`, and a number before it if such a file is there already.

    Raises:
        OSError: nowhere could it be written.
    """
    target = unfinished.save_path or Path(f"kandinsky-{unfinished.record.seed}")
    failures: list[str] = []
    for place, folder_of in (
        ("beside its target", lambda: target.parent),
        ("in the folder for temporary files", lambda: Path(tempfile.gettempdir())),
        ("at home", Path.home),
    ):
        try:  # to ask for a folder may fail too: there may be no home, or no temporary folder that can be written
            return _save_in(folder_of().absolute(), short(target.stem), unfinished)
        except (OSError, RuntimeError) as error:
            failures.append(f"{place}: {error}")
    raise OSError("; ".join(failures))


def _save_in(folder: Path, stem: str, unfinished: Unfinished) -> Path:
    def write(path: Path) -> None:
        try:
            save_file({"latents": unfinished.latents.contiguous()}, path, metadata=_metadata(unfinished))
        except SafetensorError as error:
            raise OSError(str(error)) from error

    return create_new(folder / f"{stem}{SUFFIX}", write, ending=SUFFIX)  # another run's latents are not ours to replace


def _metadata(unfinished: Unfinished) -> dict[str, str]:
    job = {"save_path": unfinished.save_path and _given(unfinished.save_path), "metadata": unfinished.metadata}
    vae = unfinished.vae and dataclasses.asdict(unfinished.vae)
    return {"record": unfinished.record.to_json(), "job": json.dumps(job), "vae": json.dumps(vae)}


def _given(target: Path) -> str:
    """A target as it is given to a call: a folder of png frames ends in a slash."""
    return str(target.absolute()) if target.suffix else f"{target.absolute()}/"


def load_unfinished(path: str | os.PathLike[str]) -> tuple[Unfinished, str | None]:
    """What `save_unfinished` wrote, and the target as it was given: with a slash at its end if it is a folder.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it is damaged, or not such a file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as handle:
            found = handle.metadata() or {}
            latents = handle.get_tensor("latents")
        check_latents(latents)
        job, vae = json.loads(found["job"]), json.loads(found["vae"])
        if not isinstance(job["metadata"], bool):
            raise TypeError(f"metadata is {shown(job['metadata'])}")
        unfinished = Unfinished(
            latents=latents,
            record=Record.from_json(found["record"], path),
            save_path=job["save_path"] and Path(job["save_path"]),
            metadata=job["metadata"],
            vae=vae and _vae_source(vae),
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is damaged or was not saved by this library: {error!r}") from error
    return unfinished, job["save_path"]


def check_latents(latents: Tensor) -> None:
    """Refuse what no sampler gives.

    Raises:
        ValueError: they are not floating-point `[T, H, W, C]`.
    """
    if latents.ndim != 4 or 0 in latents.shape or not latents.is_floating_point():
        found = f"{latents.dtype} {list(latents.shape)}"
        raise ValueError(f"latents are {found}; allowed: floating-point [T, H, W, C], not empty")


def _vae_source(found: dict[str, object]) -> VaeSource:
    """What a file says of its VAE, which anybody may have written.

    Raises:
        TypeError: it is not what this library writes.
    """
    source = VaeSource(**found)  # pyright: ignore[reportArgumentType]  # looked at below
    texts = (source.path, source.device, source.dtype)
    if not all(isinstance(text, str) for text in texts) or not isinstance(source.memory_saving, bool):
        raise TypeError("its VAE is not described as this library does it")
    for name, allowed in {"dtype": DTYPES, "kernels": KERNELS, "precision": PRECISIONS}.items():
        if getattr(source, name) not in allowed:
            raise TypeError(f"its VAE's {name} is {shown(getattr(source, name))}")
    return source


class _Copy:
    """The file of `unfinished`, written by a thread from the beginning if `at_once`, and whenever it is asked for."""

    def __init__(self, unfinished: Unfinished, *, at_once: bool):
        self._unfinished = unfinished
        self._path: Path | None = None
        self._lock = Lock()
        self._thread = Thread(target=self._try, name="latents file")
        if at_once:
            self._thread.start()

    def secure(self) -> Path:
        """Where the file is; it is written if it is not there (any more).

        Raises:
            OSError: it cannot be written anywhere.
        """
        with self._lock:
            if self._path is None or not self._path.exists():
                self._path = save_unfinished(self._unfinished)
            return self._path

    def discard(self) -> None:
        """Remove the file."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def tell(self) -> str:
        """Secure the file; a sentence for the user."""
        try:
            path = self.secure()
        except OSError as error:
            return f"its latents could not be saved either: {error}"
        command = f"kandinsky resume {shlex.quote(str(path))}"
        target = self._unfinished.save_path
        if target is not None and path.parent != target.absolute().parent:
            command += f" --save-path {shlex.quote(_given(target))}"
        return f"its latents are saved in {path}; to finish it: {command}"

    def _try(self) -> None:
        try:
            self.secure()
        except OSError:  # what was asked for may still succeed; if not, saving is tried again
            return


@contextmanager
def kept(unfinished: Unfinished, *, rescue: Rescue = no_rescue) -> Iterator[None]:
    """Meanwhile keep the latents; if the body fails, by whatever, they are in a file and the error tells where.

    Args:
        rescue: sees to it that they are saved before the process is ended because another one failed.

    Raises:
        DecodeError: the body failed, with its exception as the cause. Ctrl-C and the like are passed on with a note.
    """
    copy = _Copy(unfinished, at_once=unfinished.save_path is not None)
    try:
        with rescue(lambda: print(f"sampled, but not finished: {copy.tell()}", file=sys.stderr)):
            yield
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DecodeError(f"sampled, but not finished ({first}); {copy.tell()}") from error
    except BaseException as error:
        error.add_note(f"sampled, but not finished: {copy.tell()}")
        raise
    copy.discard()
