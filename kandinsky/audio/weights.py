"""Where the files of V2A are: given, standing in their folder in `cache_dir`, or downloaded there from the hub.

They have a folder of their own, since their `vae` and `scheduler` are other ones than those of text to video.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from kandinsky.audio.encoder import ENCODER_REPOSITORY
from kandinsky.checkpoint.hub import HUGGING_FACE, Hub
from kandinsky.checkpoint.standing import NEEDED, Faults, faults_of
from kandinsky.errors import CheckpointError

REPOSITORY = "ai-forever/kandinsky-4-v2a"
FOLDER = "kandinsky-4-v2a"
"""In `cache_dir`."""
ENCODER_FOLDER = "cogvlm2-video-llama3-chat"
"""In `cache_dir`, beside it."""


@dataclass(frozen=True)
class SoundPaths:
    """Folders of one model."""

    unet: Path
    vae: Path
    scheduler: Path


COMPONENTS = tuple(SoundPaths.__dataclass_fields__)
KIND = {"unet": "vae", "vae": "vae", "scheduler": "scheduler"}
"""The component of text to video that has files of the same names."""


def locate_sound(
    cache_dir: Path,
    given: Mapping[str, Path],
    *,
    local_files_only: bool,
    revision: str | None,
    hub: Hub = HUGGING_FACE,
) -> SoundPaths:
    """Paths of all components, downloading what is neither given nor standing.

    Args:
        given: explicit paths; never downloaded.
        revision: branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: something is missing and cannot be downloaded; the message says what to put where.
        CheckpointError: something is damaged and cannot be downloaded again.
    """
    for name, path in given.items():
        if not path.exists():
            raise FileNotFoundError(f"{name} not found at {path}, the path that was given for it")
    folder = cache_dir / FOLDER
    paths = {name: given.get(name, folder / name) for name in COMPONENTS}
    faults = _faults(paths)
    wanted = [name for name in faults if name not in given]
    reason = "these are the paths that were given"
    if wanted and local_files_only:
        reason = "local_files_only=True forbids downloading"
    elif wanted:
        reason = _download(folder, wanted, revision, hub)
        faults = _faults(paths)
    if faults:
        raise _not_standing(paths, faults, reason)
    return SoundPaths(**paths)


def locate_encoder(cache_dir: Path, given: Path | None) -> Path:
    """Where the encoder is, or would be downloaded to; nothing is looked up."""
    return cache_dir / ENCODER_FOLDER if given is None else given


def fetch_encoder(folder: Path, revision: str, *, local_files_only: bool, hub: Hub = HUGGING_FACE) -> None:
    """Download the encoder, 24 GB with its code, into `folder` at one commit.

    Raises:
        FileNotFoundError: it cannot be downloaded; the message says what to put where.
    """
    reason = "local_files_only=True forbids downloading"
    if not local_files_only:
        reason = _fetch(ENCODER_REPOSITORY, ["*.json", "*.py", "*.safetensors", "*.model"], folder, revision, hub)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"the encoder is missing ({reason}). Put there: {folder}/  all files of {ENCODER_REPOSITORY}, or give "
            "embeddings, which need no encoder"
        )


def _faults(paths: Mapping[str, Path]) -> dict[str, Faults]:
    found = {name: faults_of(KIND[name], path) for name, path in paths.items()}
    return {name: faults for name, faults in found.items() if faults.all}


def _download(folder: Path, names: list[str], revision: str | None, hub: Hub) -> str:
    return _fetch(REPOSITORY, [f"{name}/*" for name in names], folder, revision, hub)


def _fetch(repository: str, patterns: list[str], folder: Path, revision: str | None, hub: Hub) -> str:
    """Download files of a repository; returns why that may not have been all."""
    try:
        hub.check_reachable()
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            hub.fetch_files(repository, patterns, folder, revision)
    except Exception as error:  # noqa: BLE001  # the hub raises its own, the HTTP library's and the system's errors
        lines = str(error).strip().splitlines() or ["no message"]
        return f"download failed: {type(error).__name__}: {lines[0]}"
    return "the download did not bring it"


def _not_standing(
    paths: Mapping[str, Path], faults: Mapping[str, Faults], reason: str
) -> FileNotFoundError | CheckpointError:
    missing = any(fault.missing for fault in faults.values())
    lines = [f"weights of the sound model are {'missing' if missing else 'damaged'} ({reason}). Put there:"]
    for name, fault in faults.items():
        lines.append(f"  {paths[name]}/  ({', '.join(NEEDED[KIND[name]])})  from {REPOSITORY}")
        lines += [f"    {line}" for line in fault.all]
    return (FileNotFoundError if missing else CheckpointError)("\n".join(lines))
