"""Where each weight file is: given, standing in `cache_dir`, or downloaded there from the hub.

Files that stand are used without asking the hub. What is missing is downloaded by one process; others that start at
the same time wait at a lock in `cache_dir` and then find the files standing.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from filelock import FileLock

from kandinsky.checkpoint.safetensors_file import read_header
from kandinsky.config import ModelSet
from kandinsky.errors import CheckpointError
from kandinsky.model.precision import EXACT, Precision


@dataclass(frozen=True)
class WeightPaths:
    """Files and folders of one model set."""

    dit: Path
    text_encoder: Path
    tokenizer: Path
    vae: Path
    scheduler: Path


COMPONENTS = tuple(WeightPaths.__dataclass_fields__)
_MARKS = {
    "text_encoder": ("config.json", "*.safetensors"),
    "vae": ("config.json", "*.safetensors"),
    "tokenizer": ("spiece.model",),
    "scheduler": ("scheduler_config.json",),
}
"""What has to be in a component's folder for it to count as standing."""


def locate(
    cache_dir: Path,
    *,
    model_set: ModelSet,
    given: Mapping[str, Path],
    local_files_only: bool,
    revision: Mapping[str, str],
    precision: Precision = EXACT,
) -> WeightPaths:
    """Paths of all components, downloading what neither is given nor stands in `cache_dir`.

    Args:
        precision: whose converted DiT is preferred to the published file.
        given: explicit path of any component; never downloaded.
        local_files_only: do not ask the hub.
        revision: branch, tag or commit for each hub repository.

    Raises:
        FileNotFoundError: a given path does not exist, or something is missing and cannot be downloaded.
    """
    for name, path in given.items():
        if not path.exists():
            raise FileNotFoundError(f"{name} not found at {path}, the path that was given for it")
    missing = [name for name in COMPONENTS if name not in given and not _stands(cache_dir, name, model_set, precision)]
    if missing and local_files_only:
        raise FileNotFoundError(_what_to_do(cache_dir, missing, model_set, "local_files_only=True forbids downloading"))
    if missing:
        _download(cache_dir, missing, model_set, revision, precision)
    return WeightPaths(**{name: given.get(name) or _path(cache_dir, name, model_set, precision) for name in COMPONENTS})


def converted_file(cache_dir: Path, model_set: ModelSet, precision: Precision) -> Path:
    """Where `kandinsky convert` puts its copy of the DiT."""
    published = cache_dir / model_set.dit_file
    return published.with_name(f"{published.stem}{precision.file_suffix}.safetensors")


def fetch(repository: str, revision: str | None, model_set: ModelSet, *, local_files_only: bool) -> Path:
    """The folder of a hub repository in the published layout, downloaded into the hub's own cache.

    Raises:
        FileNotFoundError: it is not there, or cannot be downloaded.
    """
    from huggingface_hub import constants, snapshot_download

    dit = Path(model_set.dit_file)
    wanted = [dit.name, dit.with_suffix(".safetensors").name, *(f"{name}/*" for name in _MARKS)]
    try:
        if not local_files_only:
            _check_reachable(constants.ENDPOINT)
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=wanted, local_files_only=local_files_only)
        )
    except Exception as error:  # as in _download
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        raise FileNotFoundError(f"{repository!r} is not a folder here, nor found on the hub ({reason})") from error


def _path(cache_dir: Path, name: str, model_set: ModelSet, precision: Precision) -> Path:
    if name != "dit":
        return cache_dir / name
    published = cache_dir / model_set.dit_file
    candidates = [converted_file(cache_dir, model_set, one) for one in dict.fromkeys((precision, EXACT))]
    return next((file for file in candidates if _is_copy_of(file, published)), published)


def _is_copy_of(converted: Path, published: Path) -> bool:
    """Whether a converted file is there, and whole and of the published one if there is a choice."""
    if not converted.is_file() or not published.exists():
        return converted.is_file()
    try:
        header = read_header(converted)
    except CheckpointError:
        return False
    source = header.metadata.get("source_bytes")
    return source == str(published.stat().st_size) and converted.stat().st_size == header.size


def _stands(cache_dir: Path, name: str, model_set: ModelSet, precision: Precision) -> bool:
    path = _path(cache_dir, name, model_set, precision)
    if name == "dit":
        return path.is_file()
    return all(any(path.glob(mark)) for mark in _MARKS[name])


def _download(
    cache_dir: Path, missing: list[str], model_set: ModelSet, revision: Mapping[str, str], precision: Precision
) -> None:
    from huggingface_hub import constants, hf_hub_download, snapshot_download

    try:
        _check_reachable(constants.ENDPOINT)
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / ".download.lock"):
            missing = [name for name in missing if not _stands(cache_dir, name, model_set, precision)]
            folders = [f"{name}/*" for name in missing if name != "dit"]
            if "dit" in missing:
                repository = model_set.dit_repository
                hf_hub_download(repository, model_set.dit_file, local_dir=cache_dir, revision=revision.get(repository))
            if folders:
                repository = model_set.components_repository
                wanted = revision.get(repository)
                snapshot_download(repository, allow_patterns=folders, local_dir=cache_dir, revision=wanted)
    except (
        Exception
    ) as error:  # the hub raises its own, the HTTP library's and the system's errors: all mean "not downloaded"
        reason = f"download failed: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        raise FileNotFoundError(_what_to_do(cache_dir, missing, model_set, reason)) from error


def _check_reachable(endpoint: str) -> None:
    """Fail at once where the hub's name does not resolve: its client would retry for half a minute."""
    if not getproxies():  # behind a proxy, names are the proxy's to resolve
        socket.getaddrinfo(urlparse(endpoint).hostname, None)


def _what_to_do(cache_dir: Path, missing: list[str], model_set: ModelSet, reason: str) -> str:
    lines = [f"weights are missing in {cache_dir} ({reason}). Put there:"]
    for name in missing:
        if name == "dit":
            lines.append(f"  {model_set.dit_file}  from {model_set.dit_repository}")
        else:
            lines.append(f"  {name}/  ({', '.join(_MARKS[name])})  from {model_set.components_repository}")
    lines.append("To try everything without them, use the embedded tiny model: --weights weights/tiny")
    return "\n".join(lines)
