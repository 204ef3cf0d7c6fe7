"""`kandinsky train-lora`: the trainer of low-rank weights in a process of its own, with the arguments that it has.

Nothing imports `training/`: what the command says is handed on as it is, and `--help` is the trainer's.
"""

import subprocess
import sys
from collections.abc import Sequence

MODULE = "kandinsky.training.quick_lora"


def train_lora(arguments: Sequence[str]) -> int:
    """Run the trainer; returns its exit code."""
    try:
        return subprocess.run([sys.executable, "-m", MODULE, *arguments], check=False).returncode
    except KeyboardInterrupt:  # the trainer has it too, and has said so
        return 130
