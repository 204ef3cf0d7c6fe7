"""Paths as users write them: `~` is the home folder, whether a shell, an argument, a YAML file or a call says it.

Nothing is looked up: whether there is a file, and of which kind, is for whoever asked for the path to tell.
"""

import os
from argparse import ArgumentTypeError
from pathlib import Path

from kandinsky.errors import shown


def user_path(given: str | os.PathLike[str], name: str) -> Path:
    """A path as a user gives it, with `~` as the home folder.

    Args:
        name: of the argument, for the message.

    Raises:
        ValueError: not a path of text, or a home folder that is not known.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise ValueError(f"{name}={shown(given)}: allowed is a path of text")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}={shown(str(given))}: {error}") from error


def path_argument(given: str) -> Path:
    """`user_path` as the `type` of an argument of `argparse`, which names the argument in its message.

    Raises:
        ArgumentTypeError: a home folder that is not known.
    """
    try:
        return user_path(given, "path")
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
