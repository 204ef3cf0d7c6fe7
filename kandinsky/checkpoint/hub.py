"""The hub's client as it is used here, as a value: tests hand in another one."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies


def check_reachable() -> None:
    """Fail at once where the hub's name does not resolve: its client would retry for half a minute.

    Raises:
        OSError: it does not.
    """
    from huggingface_hub import constants

    if not getproxies():  # behind a proxy, names are the proxy's to resolve
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, None)


def fetch_file(repository: str, name: str, folder: Path, revision: str | None) -> bool:
    """Download one file of a repository into `folder`; returns whether the repository has it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(repository, name, local_dir=folder, revision=revision)
    except LocalEntryNotFoundError:  # it could not be asked
        raise
    except EntryNotFoundError:
        return False
    return True


def fetch_files(repository: str, patterns: Sequence[str], folder: Path, revision: str | None) -> None:
    """Download what `folder` does not have of a repository's files with such names."""
    from huggingface_hub import snapshot_download

    snapshot_download(repository, allow_patterns=list(patterns), local_dir=folder, revision=revision)


def fetch_cached(repository: str, patterns: Sequence[str], revision: str | None, *, local_files_only: bool) -> Path:
    """The hub's own folder of a repository, with its files that have such names."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), local_files_only=local_files_only
        )
    )


@dataclass(frozen=True)
class Hub:
    """What is asked of the hub; see the functions of this module. All may raise whatever its client raises."""

    check_reachable: Callable[[], None] = check_reachable
    fetch_file: Callable[[str, str, Path, str | None], bool] = fetch_file
    fetch_files: Callable[[str, Sequence[str], Path, str | None], None] = fetch_files
    fetch_cached: Callable[..., Path] = fetch_cached


HUGGING_FACE = Hub()
