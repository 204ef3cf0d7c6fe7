"""The `kandinsky` command: arguments to factory to pipeline.

Exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted. Heavy imports wait until the arguments are parsed, so
that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from kandinsky.cli_memory import MEMORY_COMMANDS, add_memory_commands
from kandinsky.cli_records import add_commands, add_output_arguments

DEMO_PROMPT = (
    "Several giant wooly mammoths approach treading through a snowy meadow, their long wooly fur lightly blows in the "
    "wind as they walk, snow covered trees and dramatic snow capped mountains in the distance"
)
"""The published demonstration's prompt."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kandinsky", description="Kandinsky 4.0 T2V Flash: text to video.")
    commands = parser.add_subparsers(dest="command", required=True)
    generate = commands.add_parser("generate", help="make a video", description="Make a video from a prompt.")
    add_generate_arguments(generate)
    random_weights = commands.add_parser(
        "random-weights",
        help="write a model set of random weights",
        description="Write a complete model set of random weights in the published layout.",
    )
    random_weights.add_argument(
        "size", choices=("tiny", "full"), help="tiny: 4 MB; full: 21 GB, for load and speed tests"
    )
    random_weights.add_argument("folder")
    random_weights.add_argument("--seed", type=int, default=0)
    random_weights.add_argument("--device", default="cpu", help="where weights are drawn (default: cpu)")
    add_memory_commands(commands)
    records = add_commands(commands)
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = parser.parse_args(given)
    if parsed.command in records:
        return run(records[parsed.command], parsed)
    if parsed.command == "random-weights":
        return run(_random_weights, parsed)
    if parsed.command in MEMORY_COMMANDS:
        return run(MEMORY_COMMANDS[parsed.command], parsed)
    return run(partial(_generate, arguments=given[1:]), parsed)


def generate_main(arguments: Sequence[str] | None = None) -> int:
    """`run_inference_distil.py`: the same as `kandinsky generate`."""
    parser = argparse.ArgumentParser(description="Make a video from a prompt; without arguments, the published demo.")
    add_generate_arguments(parser)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run(partial(_generate, arguments=given), parser.parse_args(given))


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `generate`; their defaults are the published demonstration."""
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--text", default=DEMO_PROMPT, help="the prompt")
    parser.add_argument("--save-path", help="file to write; default ./test.mp4, or ./test.png for an image")
    add_output_arguments(parser)
    parser.add_argument("--seed", type=int, default=42, help="same seed, same video")
    parser.add_argument("--time-length", type=int, default=12, help="seconds; 0 makes an image")
    parser.add_argument("--width", type=int, default=672, help="pixels")
    parser.add_argument("--height", type=int, default=384, help="pixels")
    parser.add_argument(
        "--weights", default="./weights/", help="folder of the weights (weights/tiny: random, for a try)"
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
    # torch.distributed.launch passes this one; the rank itself comes from the environment.
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def run(command: Callable[[argparse.Namespace], None], parsed: argparse.Namespace) -> int:
    """Run `command`, turning errors that a user can mend into one message and an exit code."""
    from kandinsky.checkpoint import CheckpointError
    from kandinsky.launch import LaunchError
    from kandinsky.pipeline import DecodeError
    from kandinsky.video_io import VideoError

    try:
        command(parsed)
    except (CheckpointError, DecodeError, FileNotFoundError, LaunchError, VideoError) as error:
        return _failed(error, 1)
    except ValueError as error:
        return _failed(error, 2)
    except KeyboardInterrupt as error:
        return _failed(error, 130)
    return 0


def _failed(error: BaseException, code: int) -> int:
    """Say it to the user and to the other processes: one that ends without a word would be waited for."""
    from kandinsky.watchdog import report_failure

    message = f"error: {error}" if code != 130 else "\n".join(["interrupted", *getattr(error, "__notes__", [])])
    print(message, file=sys.stderr)
    report_failure(error)
    return code


def _generate(parsed: argparse.Namespace, *, arguments: Sequence[str]) -> None:
    from kandinsky.factory import get_T2V_pipeline
    from kandinsky.launch import check_launch, launch
    from kandinsky.output import OutputOptions
    from kandinsky.pipeline import GenerationResult
    from kandinsky.ranks import launched
    from kandinsky.request import check_request
    from kandinsky.video_shape import VideoShape

    shape = VideoShape.from_request(parsed.time_length, parsed.height, parsed.width)
    save_path = parsed.save_path or ("./test.png" if shape.is_image else "./test.mp4")
    # Checked here too, because the pipeline's own check comes after its weights are loaded.
    settings = {"fps": parsed.fps, "crf": parsed.crf, "codec": parsed.codec, "metadata": not parsed.no_metadata}
    options = OutputOptions(type="file", **settings)
    request = check_request(parsed.text, save_path=save_path, bs=1, shape=shape, seed=parsed.seed, options=options)
    (job,) = request.jobs
    check_launch(parsed.num_gpus, parsed.device)
    if parsed.num_gpus > 1 and not launched():
        launch(arguments, parsed.num_gpus)
        return
    pipe = get_T2V_pipeline(
        parsed.device,
        cache_dir=parsed.weights,
        precision=parsed.precision,
        memory=parsed.memory,
        prompt=job.prompt,
        parallelism=parsed.parallelism,
        progress=not parsed.no_progress,
    )
    size = shape.seconds, shape.width, shape.height
    result = pipe(job.prompt, save_path, 1, *size, job.seed, output_type="file", **settings)
    if result is None:
        return
    assert isinstance(result, GenerationResult)
    pixels = f"{shape.width}x{shape.height}"
    if shape.is_image:
        print(f"{result.path}: {pixels} image, seed {result.seed}")
        return
    print(f"{result.path}: {result.num_frames} frames of {pixels} at {result.fps} fps, seed {result.seed}")
    for stage, seconds in result.timings.items():
        memory = result.peak_memory.get(stage)
        print(f"{stage:>8} {seconds:8.3f} s" + (f", peak {memory / 2**30:.2f} GiB" if memory else ""))


def _random_weights(parsed: argparse.Namespace) -> None:
    from kandinsky.random_weights import make_random_weights

    print(make_random_weights(parsed.folder, parsed.size, seed=parsed.seed, device=parsed.device))
