"""The `kandinsky` command: arguments to factory to pipeline.

How it ends and what it prints is in `cli_run`. Heavy imports wait until the arguments are parsed, so that `--help`
answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from kandinsky.cli_batch import generate_batch
from kandinsky.cli_memory import add_memory_commands
from kandinsky.cli_records import add_record_commands
from kandinsky.cli_run import (
    Defaults,
    Outcome,
    Parser,
    add_output_arguments,
    add_print_arguments,
    add_shape_arguments,
    check_and_launch,
    load_pipeline,
    made,
    model_set_of,
    output_settings,
    parse_and_run,
)
from kandinsky.web import add_web_arguments, serve

DEMO_PROMPT = (
    "Several giant wooly mammoths approach treading through a snowy meadow, their long wooly fur lightly blows in the "
    "wind as they walk, snow covered trees and dramatic snow capped mountains in the distance"
)
"""The published demonstration's prompt."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    parser = Parser(prog="kandinsky", description="Kandinsky 4.0 T2V Flash: text to video.")
    commands = parser.add_subparsers(dest="command", required=True)
    given = list(sys.argv[1:] if arguments is None else arguments)
    generate = commands.add_parser("generate", help="make a video", description="Make a video from a prompt.")
    add_generate_arguments(generate)
    generate.set_defaults(run=partial(_generate, arguments=given[1:]))
    web = commands.add_parser("web", help="open a page in the browser", description="Serve a page that makes videos.")
    add_web_arguments(web)
    web.set_defaults(run=serve)
    add_record_commands(commands)
    add_memory_commands(commands)
    _add_random_weights(commands)
    return parse_and_run(parser, given, lambda parsed: parsed.run(parsed))


def generate_main(arguments: Sequence[str] | None = None) -> int:
    """`run_inference_distil.py`: the same as `kandinsky generate`."""
    parser = Parser(description="Make a video from a prompt; without arguments, the published demo.")
    add_generate_arguments(parser)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return parse_and_run(parser, given, partial(_generate, arguments=given))


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `generate`; their defaults are the published demonstration."""
    parser.formatter_class = Defaults
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--text", help=f"the prompt; default: {DEMO_PROMPT}")
    asked.add_argument(
        "--prompts", metavar="FILE", help="many prompts: a .txt with one a line, or a .jsonl with an object a line"
    )
    parser.add_argument(
        "--save-path", help="file to write; default ./test.mp4, or ./test.png for an image. With --prompts, a folder"
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--seed", type=int, default=42, help="same seed, same video; with --prompts that of the first, then counting up"
    )
    add_shape_arguments(parser)
    parser.add_argument(
        "--weights", default="./weights/", help="folder of the weights (weights/tiny: a tiny model, for a try)"
    )
    parser.add_argument("--device", default="cuda", help="where everything runs: cuda, cuda:1, cpu, mps")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes to start, one for each GPU (or on the CPU)")
    parser.add_argument(
        "--parallelism",
        default="tensor",
        choices=("tensor", "sequence", "none"),
        help="how several GPUs work: on one video together, or (none) each on its own",
    )
    parser.add_argument("--precision", default="exact", choices=("exact", "fast"), help="fast: float8 Linears, lossy")
    parser.add_argument(
        "--memory",
        default="auto",
        choices=("auto", "resident", "staged", "blocks"),
        help="where weights are while they are not used; auto: the fastest that fits",
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    add_print_arguments(parser)
    # torch.distributed.launch passes this one; the rank itself comes from the environment.
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def _add_random_weights(commands: Any) -> None:
    parser = commands.add_parser(
        "random-weights",
        help="write a model set of random weights",
        description="Write a complete model set of random weights in the published layout.",
    )
    parser.add_argument("size", choices=("tiny", "full"), help="tiny: 4 MB; full: 21 GB, for load and speed tests")
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where weights are drawn (default: cpu)")
    add_print_arguments(parser)
    parser.set_defaults(run=_random_weights)


def _generate(parsed: argparse.Namespace, *, arguments: Sequence[str]) -> Outcome | None:
    from kandinsky.output import OutputOptions
    from kandinsky.request import check_request
    from kandinsky.video_shape import VideoShape

    model_set = model_set_of(parsed)
    if parsed.prompts is not None:
        return generate_batch(parsed, model_set, arguments=arguments)
    shape = VideoShape.from_request(parsed.time_length, parsed.height, parsed.width, model_set=model_set)
    save_path = parsed.save_path or ("./test.png" if shape.is_image else "./test.mp4")
    text = DEMO_PROMPT if parsed.text is None else parsed.text
    # Checked here too, because the pipeline's own check comes after its weights are loaded.
    settings = output_settings(parsed)
    options = OutputOptions(type="file", **settings)
    (job,) = check_request(text, save_path=save_path, bs=1, shape=shape, seed=parsed.seed, options=options).jobs
    if check_and_launch(parsed, arguments):
        return None
    pipe = load_pipeline(parsed, prompt=job.prompt)
    size = shape.seconds, shape.width, shape.height
    return made(pipe(job.prompt, save_path, 1, *size, job.seed, output_type="file", **settings), shape)


def _random_weights(parsed: argparse.Namespace) -> Outcome:
    from kandinsky.random_weights import make_random_weights

    folder = make_random_weights(parsed.folder, parsed.size, seed=parsed.seed, device=parsed.device)
    return Outcome([str(folder)], {"folder": str(folder)})
