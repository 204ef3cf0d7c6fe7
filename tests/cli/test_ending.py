"""How a command's process ends: what is still done, with which exit code, and what is not waited for."""

import os
import subprocess
import sys

import pytest

from kandinsky.cli.ending import SLOW

BEGIN = """
import atexit, sys, threading, time
from kandinsky.cli.ending import end_with
class Left:
    def __del__(self): print("taken apart", flush=True)
left = Left()
"""


def ended(command, *, slow=False, **settings):
    """A process whose command has this body."""
    body = "".join(f"    {line}\n" for line in command.splitlines())
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings}
    environment = {**os.environ, SLOW: "1" if slow else "", "PYTHONUNBUFFERED": ""}
    code = f"{BEGIN}def command():\n{body}end_with(command)"
    return subprocess.run([sys.executable, "-c", code], check=False, env=environment, **settings)


def test_what_is_registered_and_running_is_done_first():
    """In Python's order: threads that are no daemons, then functions, the last one first."""
    done = ended(
        "atexit.register(print, 'registered')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('a thread'))).start()\n"
        "sys.stdout.write('not flushed ')\n"
        "return 3"
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split("\n") == ["not flushed a thread", "registered", ""]


def test_python_ends_the_process_if_that_is_wanted():
    assert "taken apart" in ended("return 0", slow=True).stdout
    assert "taken apart" not in ended("return 0").stdout


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(4)", 4, ""),
        ("sys.exit('a text')", 1, "a text"),
        ("raise RuntimeError('not foreseen')", 1, "not foreseen"),
        ("raise KeyboardInterrupt", -2, "KeyboardInterrupt"),
    ],
)
def test_other_ends_are_pythons(command, code, said):
    done = ended(command)
    assert done.returncode == code
    assert said in done.stderr


def test_output_that_is_lost_is_not_a_success():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert ended("print('a result')\nreturn 0", stdout=writer).returncode == 120  # as Python has it
    finally:
        os.close(writer)
