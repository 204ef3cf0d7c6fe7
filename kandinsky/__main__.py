"""`python -m kandinsky`, and the command `kandinsky`."""

from typing import NoReturn

from kandinsky.cli.ending import end_with
from kandinsky.cli.main import main


def run() -> NoReturn:
    """The process's only act."""
    end_with(main)


if __name__ == "__main__":
    run()
