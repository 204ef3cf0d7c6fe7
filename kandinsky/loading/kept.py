"""What takes long to make, kept in the user's cache from one process to the next: compiled kernels, and the tokenizer.

Triton keeps its own kernels. A file begins with the SHA-256 of the rest. What is damaged is made and written again; a
folder that cannot be written costs only the memory.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from kandinsky.atomic import replacing
from kandinsky.loading.remembered import user_cache

_log = logging.getLogger(__name__)
KINDS: Mapping[str, str] = MappingProxyType({"code": ".cubin", "tokenizers": ".json"})
"""Folders in the user's cache, with the ending that their files have."""
_DIGEST_BYTES = hashlib.sha256().digest_size


def kept(key: str, make: Callable[[], bytes], *, kind: str, folder: Path | None = None) -> bytes:
    """What `make` returned when this key was first asked for here.

    Args:
        key: everything that the content depends on.
        make: gives the content.
        kind: of `KINDS`.
        folder: where it is kept; None is the kind's in the user's cache.

    Raises what `make` raises.
    """
    name = hashlib.sha256(key.encode()).hexdigest()
    file = (folder or user_cache() / kind) / f"{name}{KINDS[kind]}"
    found = _read(file)
    if found is not None:
        return found
    content = make()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as path:
            path.write_bytes(hashlib.sha256(content).digest() + content)
    except OSError as error:
        _log.info("%s are not kept: %s", kind, error)
    return content


def _read(file: Path) -> bytes | None:
    """The content of a file; None where it is missing or damaged."""
    try:
        found = file.read_bytes()
    except OSError:
        return None
    digest, content = found[:_DIGEST_BYTES], found[_DIGEST_BYTES:]
    return content if content and hashlib.sha256(content).digest() == digest else None
