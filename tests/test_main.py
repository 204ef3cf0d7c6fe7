"""`python -m kandinsky`."""

import subprocess
import sys

from helpers import ROOT


def test_it_is_the_command():
    command = [sys.executable, "-m", "kandinsky", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: kandinsky [-h]")
    assert "{generate,extend,serve,web,sound," in done.stdout
