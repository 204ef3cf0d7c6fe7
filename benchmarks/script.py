"""What every script beside this one has: its arguments, and the line of JSON that it ends with.

    --size full|tiny      full (the default) is what the figures in docs/ are of; tiny tries the script itself out
    --device cuda|cpu     where it runs; CUDA by default, but for scripts that need no GPU
    --json FILE           the last line's figures, into a file too

`--size tiny --device cpu` runs any of them in seconds. Nothing of the library is imported here: some scripts time that.
"""

import argparse
import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

SIZES = ("full", "tiny")


def parser_of(doc: str | None, *, devices: Sequence[str] = ("cuda", "cpu")) -> argparse.ArgumentParser:
    """A parser of the shared arguments.

    Args:
        doc: the script's docstring.
        devices: that it can run on, the default first.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full", help="tiny tries the script out (default: full)")
    parser.add_argument("--device", choices=devices, default=devices[0], help=f"default: {devices[0]}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures of the last line")
    return parser


def device_in(given: argparse.Namespace) -> torch.device:
    """The device that was asked for, of several ranks each its own."""
    if given.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: there is no GPU here; --size tiny --device cpu tries the script itself out")
    torch.cuda.init()  # a GPU that nothing has used yet has no statistics of memory, and to reset them is an error
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def machine(device: torch.device) -> dict[str, str]:
    """What figures are to be read with: the GPU's name, or "cpu", and PyTorch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__}


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def write_json(figures: Mapping[str, Any], file: Path | None) -> None:
    """Into a file, if there is to be one."""
    if file is not None:
        file.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def finish(figures: Mapping[str, Any], given: argparse.Namespace) -> None:
    """Print the line of JSON; numbers in it are finite."""
    write_json(figures, given.json)
    print(json.dumps(figures, allow_nan=False), flush=True)
