"""API keys: who may, and whose jobs are whose.

A file of keys has a line `NAME SHA256` for each; the keys themselves are 256 random bits, printed once and kept
nowhere, so that a plain digest is enough. Jobs belong to the name. Without a file every caller is the same owner.
"""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

EVERYBODY = "local"
"""Owner of all jobs where there are no keys."""
_NAME = re.compile(r"[\w.-]{1,64}")
_LINE = re.compile(r"([\w.-]{1,64})\s+([0-9a-f]{64})")


@dataclass(frozen=True)
class Keys:
    """Digests by the names of their owners; None lets everybody in."""

    digests: dict[str, str] | None = None

    def owner_of(self, key: str | None) -> str | None:
        """Whose key it is; None if it is nobody's. Takes as long for a wrong key as for a right one."""
        if self.digests is None:
            return EVERYBODY
        given, found = _digest(key or ""), None
        for name, digest in self.digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found


def read_keys(path: Path) -> Keys:
    """The keys of a file.

    Raises:
        ValueError: it cannot be read, has no keys, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"keys={str(path)!r} cannot be read: {error}") from error
    digests = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or found[1] in digests:
            raise ValueError(f"keys={str(path)!r}, line {number}: allowed is a new name and the SHA-256 of its key")
        digests[found[1]] = found[2]
    if not digests:
        raise ValueError(f"keys={str(path)!r} holds no key; make one with: kandinsky serve --keys FILE --add-key NAME")
    return Keys(digests)


def add_key(path: Path, name: str) -> str:
    """A new key for `name`, whose digest is appended to the file.

    Raises:
        ValueError: the name cannot be one, or has a key already; or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"add_key={name!r}: allowed are up to 64 letters, digits, '.', '_' and '-'")
    given = path.exists() and (not path.is_file() or path.stat().st_size)
    if given and name in (read_keys(path).digests or {}):
        raise ValueError(f"add_key={name!r}: {path} has a key of this name; remove its line first")
    key = f"sk-{secrets.token_urlsafe(32)}"
    line_end = "" if not given or path.read_bytes().endswith(b"\n") else "\n"  # an editor may have left it out
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, f"{line_end}{name} {_digest(key)}\n".encode())
        finally:
            os.close(file)
    except OSError as error:
        raise ValueError(f"keys={str(path)!r} cannot be written: {error}") from error
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
