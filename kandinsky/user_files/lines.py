"""Text files that users write, read in one way: UTF-8, with or without a byte order mark, lines ended by LF or CR LF.

What is not such a text is never guessed at or mended: the error names the file, the byte and what was found there. Who
reads one thing (prompts, a configuration) takes `read_lines`, `read_text`, `read_json` or `read_yaml` and gets an error
for the whole file; who reads many things that don't need each other (a data set) takes `each_line` and passes the bad
ones over.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

MAX_LINE = 2**20
"""Bytes of a line; a longer one is no prompt and no caption, but another kind of file."""
MAX_TEXT = 2**24
"""Bytes of a file that is read as a whole."""
OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
MARK = "\ufeff"


@dataclass(frozen=True)
class Line:
    """A line of a file.

    Args:
        number: from 1.
        text: without what ends the line; empty if there is a fault.
        fault: why this is no line of text, to follow a name of the line; None if it is one.
    """

    number: int
    text: str
    fault: str | None = None


def each_line(path: Path, *, name: str | None = None) -> Iterator[Line]:
    """All lines of a file, those too that are no text.

    Args:
        name: what errors call the file, if not by its path.

    Raises:
        ValueError: the file as a whole is in another encoding.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        _check_mark(file.read(4), name or str(path))
        file.seek(0)
        for number in count(1):
            begin = file.tell()
            line = file.readline(MAX_LINE + 1)
            if not line:
                return
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                _skip_line(file)
                yield Line(number, "", f"is longer than {MAX_LINE} bytes")
                continue
            if (fault := _fault(line)) is not None:
                yield Line(number, "", f"{fault[0]} at byte {begin + fault[1]}")
                continue
            # The mark may begin any line: files may have been put together one after the other.
            yield Line(number, line.decode().removesuffix("\n").removesuffix("\r").removeprefix(MARK))


def read_lines(path: Path, *, name: str | None = None) -> list[str]:
    """All lines of a file.

    Args:
        name: what errors call the file, if not by its path.

    Raises:
        ValueError: one of them is no text; names file, line and byte.
        OSError: it cannot be read.
    """
    found = []
    for line in each_line(path, name=name):
        if line.fault is not None:
            raise ValueError(f"{name or path} {line.fault} (line {line.number})")
        found.append(line.text)
    return found


def read_text(path: Path, *, name: str | None = None) -> str:
    """A file as a whole, its lines ended by LF alone.

    Args:
        name: what errors call the file, if not by its path.

    Raises:
        ValueError: it is no text; names file, line and byte.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    _check_mark(content, name or str(path))
    if len(content) > MAX_TEXT:
        raise ValueError(f"{name or path} is longer than {MAX_TEXT} bytes")
    if (fault := _fault(content)) is not None:
        what, at = fault
        line = content.count(b"\n", 0, at) + 1
        raise ValueError(f"{name or path} {what} at byte {at} (line {line})")
    return content.decode().removeprefix(MARK).replace("\r\n", "\n")


def read_json(path: Path, *, name: str | None = None) -> Any:
    """What a JSON file holds.

    Args:
        name: what errors call the file, if not by its path.

    Raises:
        ValueError: it is no text or not JSON.
        OSError: it cannot be read.
    """
    text = read_text(path, name=name)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{name or path} is {error}") from error


def read_yaml(path: Path, *, name: str | None = None) -> Any:
    """What a YAML file holds; None if that is nothing.

    Args:
        name: what errors call the file, if not by its path.

    Raises:
        ValueError: it is no text or not YAML.
        OSError: it cannot be read.
    """
    import yaml

    text = read_text(path, name=name)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or number that is none
        raise ValueError(f"{name or path} is not YAML: {error}") from error


def parse_json(text: str) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nested or long beyond what Python reads.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text: half a surrogate pair, which JSON can name, it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault(content: bytes) -> tuple[str, int] | None:
    """Why bytes are no text, and the number of the first that is not; None if they are one."""
    if b"\0" in content:  # which UTF-8 allows, but is how UTF-16 without a mark looks
        return "is no text, or not UTF-8: null byte", content.index(0)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: {error.reason}", error.start
    return None


def _check_mark(beginning: bytes, name: str) -> None:
    for mark, encoding in OTHER_MARKS.items():
        if beginning.startswith(mark):
            raise ValueError(f"{name} is not UTF-8: its first bytes are the mark of {encoding}; save it as UTF-8")


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
        pass
