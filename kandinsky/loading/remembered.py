"""Which attention backend was the fastest here, remembered from one process to the next.

Two backends that are nearly as fast as each other change places from one measurement to the next, and with them the
bits of a result. What was found is therefore kept in a small file in the user's cache folder, by everything that it
depends on: GPU, driver, versions of PyTorch, Triton and this library, and which backends could be chosen. A file that
is damaged or cannot be written is as good as none: it is measured again. `forget` begins anew.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from filelock import FileLock

from kandinsky.atomic import write_text
from kandinsky.config import VERSION
from kandinsky.model.attention import Attention
from kandinsky.model.attention_choice import best_of, trials

_log = logging.getLogger(__name__)
NAME = "attention.json"
LOCK_SECONDS = 5


def user_cache(environment: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Path:
    """The library's folder among the user's caches, as each system wants it; it need not be there.

    Args:
        environment: variables of the process.
        platform: as `sys.platform`.
    """
    home = Path.home()
    default = {"darwin": home / "Library" / "Caches", "win32": home / "AppData" / "Local"}.get(
        platform, home / ".cache"
    )
    named = environment.get("LOCALAPPDATA" if platform == "win32" else "XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else default) / "kandinsky4"


def remembered_or_fastest(
    backends: list[Attention], *, device: torch.device, head_dim: int, folder: Path | None = None
) -> Attention:
    """The one of some backends that was the fastest when this was first asked here, or now if it never was.

    Args:
        backends: that may run, fitted to the model's logits.
        device: a CUDA device.
        head_dim: of the model.
        folder: where it is remembered; None is the user's cache.
    """
    file = (folder or user_cache()) / NAME
    key = key_of([backend.label for backend in backends], device=device, head_dim=head_dim)
    remembered = remembered_name(backends, device=device, head_dim=head_dim, folder=folder)
    known = next((backend for backend in backends if backend.name == remembered), None)
    if known is not None and (tried := trials([known], device=device, head_dim=head_dim))[0].milliseconds is not None:
        return best_of(tried)
    tried = trials(backends, device=device, head_dim=head_dim)
    found = best_of(tried)
    if any(trial.passing for trial in tried):  # a GPU that was full for a moment is not to be slow for good
        return found
    name = _remember(file, key, found.name, replaces=known is not None)
    return next(backend for backend in backends if backend.name == name)


def remembered_name(
    backends: list[Attention], *, device: torch.device, head_dim: int, folder: Path | None = None
) -> str | None:
    """Name of the backend that would be taken unasked, without trying it; None where none is remembered.

    Args:
        backends, device, head_dim, folder: as `remembered_or_fastest` takes them.
    """
    names = [backend.name for backend in backends]
    labels = [backend.label for backend in backends]
    known = _read((folder or user_cache()) / NAME).get(key_of(labels, device=device, head_dim=head_dim))
    return known if known in names else None


def key_of(labels: list[str], *, device: torch.device, head_dim: int) -> str:
    """Everything that the choice depends on, in one line."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        place = f"{torch.cuda.get_device_name(device)}, sm_{major}{minor}, driver {driver_version() or 'unknown'}"
    else:
        place = device.type
    versions = f"torch {torch.__version__}, triton {_version('triton')}, kandinsky4 {VERSION}"
    return f"{place}, {versions}, head_dim {head_dim}, of {' '.join(labels)}"


def forget(folder: Path | None = None) -> None:
    """Measure again next time.

    Args:
        folder: as `remembered_or_fastest` takes it.
    """
    (folder or user_cache()).joinpath(NAME).unlink(missing_ok=True)


@cache
def driver_version() -> str | None:
    """Of NVIDIA's driver; None where there is none, or another system's."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        found = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)()  # of its interface: 13000 for CUDA 13.0
        return f"CUDA {found // 1000}.{found % 1000 // 10}" if found else None
    words = text.splitlines()[0].split()
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _read(file: Path) -> dict[str, str]:
    """What is remembered; nothing where the file is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _remember(file: Path, key: str, name: str, *, replaces: bool) -> str:
    """Keep a choice, unless another process was faster; returns what is to be taken.

    Args:
        file: of all choices.
        key: as `key_of`.
        name: of the backend that was found.
        replaces: what is remembered does not run any more.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=LOCK_SECONDS):
            known = _read(file)
            if key in known and not replaces:
                return known[key] if known[key] in re.split("[ :]", key) else name
            write_text(file, json.dumps({**known, key: name}, indent=1) + "\n")
    except OSError as error:  # a lock that is held too long is one too
        _log.info("the choice of attention is not remembered: %s", error)
    return name
