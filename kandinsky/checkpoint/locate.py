"""Where each weight file is: given, standing in `cache_dir`, or downloaded there from the hub.

Files that stand are used without asking the hub. What is missing or half there is downloaded by one process; others
that start at the same time wait at a lock in `cache_dir` and then find the files standing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from kandinsky.checkpoint.dit_file import converted_file, dit_in
from kandinsky.checkpoint.hub import HUGGING_FACE, Hub
from kandinsky.checkpoint.model_set import NAME, read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.checkpoint.standing import NEEDED, Faults, faults_of
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


def locate(
    cache_dir: Path,
    *,
    model_set: ModelSet,
    given: Mapping[str, Path],
    local_files_only: bool,
    revision: Mapping[str, str],
    precision: Precision = EXACT,
    hub: Hub = HUGGING_FACE,
) -> WeightPaths:
    """Paths of all components, downloading what neither is given nor stands in `cache_dir`.

    What is half there or damaged is downloaded again, unless the folder declares a model set of its own, or the DiT is
    in another file than the published one: that would be other weights.

    Args:
        precision: whose converted DiT is preferred to the published file.
        given: explicit path of any component; never downloaded.
        local_files_only: do not ask the hub.
        revision: branch, tag or commit for each hub repository.

    Raises:
        FileNotFoundError: a given path does not exist, or something is missing and cannot be downloaded.
        CheckpointError: nothing is missing, but something is damaged and cannot be downloaded.
    """
    check_given(given)
    wanted = [name for name in COMPONENTS if name not in given]
    paths = {name: _path(cache_dir, name, model_set, precision) for name in wanted}
    faults = _faults(paths)
    if faults and local_files_only:
        raise _not_standing(cache_dir, faults, model_set, "local_files_only=True forbids downloading")
    if faults:
        try:
            reason = _download(cache_dir, faults, model_set, revision, precision, hub)
        except Exception as error:  # the hub raises its own, the HTTP library's and the system's errors
            reason = f"download failed: {_short(error)}"
            raise _not_standing(cache_dir, faults, model_set, reason) from error
        paths = {name: _path(cache_dir, name, model_set, precision) for name in wanted}
        if faults := _faults(paths):
            raise _not_standing(cache_dir, faults, model_set, reason)
    return WeightPaths(**{**paths, **given})


def check_given(given: Mapping[str, Path]) -> None:
    """Look whether there is something at each path that was given for a component.

    Raises:
        FileNotFoundError: there is not.
    """
    for name, path in given.items():
        if not path.exists():
            raise FileNotFoundError(f"{name} not found at {path}, the path that was given for it")


def fetch(
    repository: str,
    revision: str | None,
    model_set: ModelSet,
    *,
    local_files_only: bool,
    hub: Hub = HUGGING_FACE,
) -> Path:
    """The folder of a hub repository in the published layout, downloaded into the hub's own cache.

    Raises:
        FileNotFoundError: it is not there, or cannot be downloaded.
    """
    dit = Path(model_set.dit_file)
    wanted = [dit.name, converted_file(Path(), model_set, EXACT).name, NAME, *(f"{name}/*" for name in NEEDED)]
    try:
        if not local_files_only:
            hub.check_reachable()
        return hub.fetch_cached(repository, wanted, revision, local_files_only=local_files_only)
    except Exception as error:  # as in `locate`
        raise FileNotFoundError(
            f"{repository!r} is not a folder here, nor found on the hub ({_short(error)})"
        ) from error


def _path(cache_dir: Path, name: str, model_set: ModelSet, precision: Precision) -> Path:
    return dit_in(cache_dir, model_set, precision) if name == "dit" else place_of(cache_dir, name)


def _faults(paths: Mapping[str, Path]) -> dict[str, Faults]:
    """Of the components that do not stand."""
    found = {name: faults_of(name, path) for name, path in paths.items()}
    return {name: faults for name, faults in found.items() if faults.all}


def _download(
    cache_dir: Path,
    faults: Mapping[str, Faults],
    model_set: ModelSet,
    revision: Mapping[str, str],
    precision: Precision,
    hub: Hub,
) -> str:
    """Fetch what does not stand; returns why that may not have been all.

    Raises:
        Exception: whatever the hub's client raises.
    """
    hub.check_reachable()
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_dir / ".download.lock"):
        now = _faults({name: _path(cache_dir, name, model_set, precision) for name in faults})
        names = [name for name in now if _may_be_fetched(cache_dir, name, model_set, precision)]
        if "dit" in names:
            repository = model_set.dit_repository
            wanted = revision.get(repository)
            if not (cache_dir / NAME).is_file():  # first, so that it is asked for again if the DiT does not come
                hub.fetch_file(repository, NAME, cache_dir, wanted)
            hub.fetch_file(repository, model_set.dit_file, cache_dir, wanted)
        folders = [f"{name}/*" for name in names if name != "dit"]
        if folders:
            repository = model_set.components_repository
            hub.fetch_files(repository, folders, cache_dir, revision.get(repository))
    return "the download did not bring it" if names else "the published ones are others: nothing was downloaded"


def _may_be_fetched(cache_dir: Path, name: str, model_set: ModelSet, precision: Precision) -> bool:
    """Whether published files can be what is missing: not beside parts of other weights, nor in their place."""
    path = _path(cache_dir, name, model_set, precision)
    if path not in (cache_dir / name, cache_dir / model_set.dit_file):
        return False
    nothing = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    return nothing or read_model_set(cache_dir) is None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _not_standing(
    cache_dir: Path, faults: Mapping[str, Faults], model_set: ModelSet, reason: str
) -> FileNotFoundError | CheckpointError:
    missing = any(fault.missing for fault in faults.values())
    lines = [f"weights are {'missing' if missing else 'damaged'} in {cache_dir} ({reason}). Put there:"]
    for name, fault in faults.items():
        if name == "dit":
            lines.append(f"  {model_set.dit_file}  from {model_set.dit_repository}")
        else:
            lines.append(f"  {name}/  ({', '.join(NEEDED[name])})  from {model_set.components_repository}")
        lines += [f"    {line}" for line in fault.all]
    lines.append("To try everything without them, use the embedded tiny model: --weights weights/tiny")
    return (FileNotFoundError if missing else CheckpointError)("\n".join(lines))
