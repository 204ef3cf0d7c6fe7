"""The commands that write weights: `kandinsky random-weights` and `kandinsky convert`."""

import argparse
from pathlib import Path
from typing import Any

from kandinsky.cli.common import Outcome, add_print_arguments, file_argument
from kandinsky.config import PRECISIONS


def add_weights_commands(commands: Any) -> None:
    """Add the subcommands to argparse's `commands`."""
    parser = commands.add_parser(
        "random-weights",
        help="write a model set of random weights",
        description="Write a complete model set of random weights in the published layout.",
    )
    parser.add_argument("size", choices=("tiny", "full"), help="tiny: 4 MB; full: 21 GB, for load and speed tests")
    parser.add_argument("folder", type=file_argument)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where weights are drawn (default: cpu)")
    about = "Write the DiT's checkpoint as .safetensors beside it, which loads faster; it is then preferred."
    convert = commands.add_parser("convert", help="write a copy that loads faster", description=about)
    convert.add_argument("--weights", type=file_argument, default="./weights/", help="folder of the weights")
    convert.add_argument(
        "--precision", default="exact", choices=PRECISIONS, help="fast: with float8 blocks, half the size"
    )
    convert.add_argument("--device", default="cpu", help="where weights are made float8 (default: cpu)")
    convert.add_argument("--no-progress", action="store_true", help="no progress bar")
    for command, run in ((parser, _random_weights), (convert, _convert)):
        add_print_arguments(command)
        command.set_defaults(run=run)


def _random_weights(parsed: argparse.Namespace) -> Outcome:
    from kandinsky.checkpoint.random_weights import make_random_weights
    from kandinsky.loading.devices import device_of

    device = device_of(parsed.device, "device")
    folder = make_random_weights(parsed.folder, parsed.size, seed=parsed.seed, device=device)
    return Outcome([str(folder)], {"folder": str(folder)})


def _convert(parsed: argparse.Namespace) -> Outcome:
    from kandinsky.checkpoint.convert import convert
    from kandinsky.loading.devices import device_of
    from kandinsky.model.precision import precision_of

    device = device_of(parsed.device, "device")
    progress = not (parsed.no_progress or parsed.quiet)
    path = convert(Path(parsed.weights), precision=precision_of(parsed.precision), device=device, progress=progress)
    return Outcome([str(path)], {"path": str(path)})
