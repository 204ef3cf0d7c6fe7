"""The `kandinsky` command: arguments to factory to pipeline.

How it ends and what it prints is in `common`. Heavy imports wait until the arguments are parsed, so that `--help`
answers at once.
"""

import sys
from collections.abc import Sequence
from functools import partial

from kandinsky.cli.common import Parser, parse_and_run
from kandinsky.cli.doctor import add_doctor_command
from kandinsky.cli.extend import add_extend_arguments, extend
from kandinsky.cli.generate import add_generate_arguments
from kandinsky.cli.interpolate import add_interpolate_command
from kandinsky.cli.plan import add_plan_command
from kandinsky.cli.records import add_record_commands
from kandinsky.cli.serve import add_serve_commands
from kandinsky.cli.sound import add_generate_sound, add_sound_command, generate_with_sound
from kandinsky.cli.train import train_lora
from kandinsky.cli.weights import add_weights_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    parser = Parser(prog="kandinsky", description="Kandinsky 4.0 T2V Flash: text to video.")
    commands = parser.add_subparsers(dest="command", required=True)
    given = list(sys.argv[1:] if arguments is None else arguments)
    make = commands.add_parser("generate", help="make a video", description="Make a video from a prompt.")
    add_generate_arguments(make)
    add_generate_sound(make)
    make.set_defaults(run=partial(generate_with_sound, arguments=given[1:]))
    go_on = commands.add_parser("extend", help="go on from a video", description="Go on from a video, for minutes.")
    add_extend_arguments(go_on)
    go_on.set_defaults(run=partial(extend, arguments=given[1:]))
    add_serve_commands(commands)
    add_sound_command(commands)
    commands.add_parser("train-lora", help="train low-rank weights on a folder of clips", add_help=False)
    if given[:1] == ["train-lora"]:
        return train_lora(given[1:])
    add_record_commands(commands)
    add_interpolate_command(commands)
    add_plan_command(commands)
    add_weights_commands(commands)
    add_doctor_command(commands)
    return parse_and_run(parser, given, lambda parsed: parsed.run(parsed))


def generate_main(arguments: Sequence[str] | None = None) -> int:
    """`run_inference_distil.py`: the same as `kandinsky generate`."""
    parser = Parser(description="Make a video from a prompt; without arguments, the published demo.")
    add_generate_arguments(parser)
    add_generate_sound(parser)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return parse_and_run(parser, given, partial(generate_with_sound, arguments=given))
