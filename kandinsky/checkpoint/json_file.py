"""JSON files that belong to weights: configurations, indices, declarations."""

from pathlib import Path
from typing import Any

from kandinsky.checkpoint.pointer import check_no_pointer
from kandinsky.errors import CheckpointError
from kandinsky.user_files.lines import read_json


def json_of(path: Path, *, what: str) -> Any:
    """What a JSON file in UTF-8 holds.

    Args:
        what: it should be, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not JSON.
    """
    check_no_pointer(path)
    try:
        return read_json(path, name="it")
    except ValueError as error:
        raise CheckpointError(f"{path} is not {what}: {error}") from error
