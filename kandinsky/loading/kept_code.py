"""Compiled kernels, kept in the user's cache from one process to the next; Triton keeps its own.

A file begins with the SHA-256 of the rest. What is damaged is compiled and written again; a folder that cannot be
written costs only the memory.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from kandinsky.atomic import replacing
from kandinsky.loading.remembered import user_cache

_log = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size


def kept_code(key: str, make: Callable[[], bytes], *, folder: Path | None = None) -> bytes:
    """What `make` returned when this key was first asked for here.

    Args:
        key: everything that the code depends on.
        make: compiles it.
        folder: where it is kept; None is the user's cache.

    Raises what `make` raises.
    """
    name = hashlib.sha256(key.encode()).hexdigest()
    file = (folder or user_cache() / "code") / f"{name}.cubin"
    found = _read(file)
    if found is not None:
        return found
    code = make()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as path:
            path.write_bytes(hashlib.sha256(code).digest() + code)
    except OSError as error:
        _log.info("compiled code is not kept: %s", error)
    return code


def _read(file: Path) -> bytes | None:
    """The code of a file; None where it is missing or damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if code and hashlib.sha256(code).digest() == digest else None
