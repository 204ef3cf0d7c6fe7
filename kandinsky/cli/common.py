"""What every subcommand of `kandinsky` shares: how it ends, and what it prints where.

Exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted (Ctrl-C). Results go to stdout, all else to stderr.
With `--json` stdout gets exactly one line, an object with `status` and `exit_code`, also after a failure; of several
processes the main one prints it, or after a failure the one that started them. With `--quiet` a success prints nothing.
"""

import argparse
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.cli.loras import loras_of
from kandinsky.config import ATTENTIONS, FLASH_512, KERNELS, ModelSet
from kandinsky.errors import KandinskyError

if TYPE_CHECKING:
    from kandinsky.output.result import Result
    from kandinsky.pipeline import Kandinsky4T2VPipeline
    from kandinsky.video_shape import VideoShape

DEMO_SIZE = {"width": 672, "height": 384}
INTERPOLATE_WITH = "ffmpeg (default), its motion-compensated filter on the CPU, or network, ours, on the VAE's device"
PRECISION = "fast: Linears in float8, on Hopper GPUs attention and the VAE too; lossy"
STATUS = {0: "done", 1: "failed", 2: "bad arguments", 130: "interrupted"}


@dataclass(frozen=True)
class Outcome:
    """What a command that came to its end has to say: `lines` for people, or `record` as JSON."""

    lines: Sequence[str]
    record: dict[str, object]
    code: int = 0


class Parser(argparse.ArgumentParser):
    """Raises ValueError for bad arguments, where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}\n{self.format_usage().strip()}")


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults in the help, but not that there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def file_argument(given: str) -> str:
    """A path on the command line, with `~` as the home folder where the shell has left it; a slash at its end stays."""
    return os.path.expanduser(given)  # noqa: PTH111  # a Path would drop the slash


def add_print_arguments(parser: argparse.ArgumentParser) -> None:
    """`--quiet` and `--json`."""
    parser.add_argument("--quiet", action="store_true", help="print errors and warnings only")
    parser.add_argument("--json", action="store_true", help="print one line of JSON to stdout, and nothing else there")


def add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    """Length and size; see `model_set_of`."""
    own = "or what the weights' own model_set.json allows"
    parser.add_argument("--time-length", type=int, help=f"seconds; 0 makes an image; default: 12, {own}")
    parser.add_argument("--width", type=int, help=f"pixels; default: {DEMO_SIZE['width']}, {own}")
    parser.add_argument("--height", type=int, help=f"pixels; default: {DEMO_SIZE['height']}, {own}")


def model_set_of(parsed: argparse.Namespace) -> ModelSet:
    """The model set of the weights; of the published one, sizes that nobody asked for are the demonstration's.

    A picture or a video that is given chooses the size itself.
    """
    own = read_model_set(Path(parsed.weights))
    chosen = any(getattr(parsed, name, None) is not None for name in ("image", "last_image", "video"))
    for name, value in DEMO_SIZE.items() if own is None and not chosen else ():
        if getattr(parsed, name) is None:
            setattr(parsed, name, value)
    return own or FLASH_512


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """How a file is written, and smooth video; see `output_settings`."""
    add_encoding_arguments(parser)
    parser.add_argument(
        "--interpolate", type=int, metavar="N", help="2, 3 or 4 times as many frames a second, for the same length"
    )
    parser.add_argument("--interpolate-with", help=INTERPOLATE_WITH)


def add_encoding_arguments(parser: argparse.ArgumentParser) -> None:
    """How a file is written; see `encoding_settings`."""
    parser.add_argument("--fps", type=int, help="frames per second that the file plays at; default the model's 8")
    parser.add_argument(
        "--crf", type=int, help="quality of a video file, 1 is the best that plays everywhere; default: the codec's"
    )
    parser.add_argument("--codec", help="of a video file: h264, hevc or vp9; the default is the ending's")
    parser.add_argument("--no-metadata", action="store_true", help="no record of the generation in the file")


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Which code runs on the device; see `load_pipeline`."""
    parser.add_argument(
        "--attention",
        default="auto",
        choices=("auto", *ATTENTIONS),
        help="auto: the precision's, or the fastest that is right here, which is measured once and remembered "
        "(see `kandinsky doctor`)",
    )
    parser.add_argument(
        "--kernels", default="auto", choices=KERNELS, help="torch: nothing of Triton's; auto: Triton's where they run"
    )
    parser.add_argument("--retune", action="store_true", help="forget which attention was the fastest: measure again")


def output_settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Arguments of a call, from those of `add_output_arguments`."""
    between = {name: getattr(parsed, name) for name in ("interpolate", "interpolate_with")}
    return {**encoding_settings(parsed), **between}


def encoding_settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Arguments of a call, from those of `add_encoding_arguments`."""
    names = ("fps", "crf", "codec")
    return {**{name: getattr(parsed, name) for name in names}, "metadata": not parsed.no_metadata}


def add_no_distributed(parser: argparse.ArgumentParser) -> None:
    """`--no-distributed`; see `heed_no_distributed`."""
    parser.add_argument(
        "--no-distributed",
        action="store_true",
        help="work alone, whatever a launcher has left in the environment (RANK, WORLD_SIZE, ...)",
    )


def heed_no_distributed(parsed: argparse.Namespace, *, num_gpus: int = 1) -> None:
    """Forget a launcher's variables, if that was asked for.

    Raises:
        ValueError: it was, and with it several processes, which would forget that they are some of several.
    """
    if not parsed.no_distributed:
        return
    if num_gpus > 1:
        raise ValueError(f"--no-distributed with --num-gpus {num_gpus}: allowed with it is 1, which works alone")
    from kandinsky.parallel.ranks import ignore_launcher  # with torch, which not every command needs

    ignore_launcher()


def parse_and_run(
    parser: Parser, arguments: Sequence[str], command: Callable[[argparse.Namespace], Outcome | None]
) -> int:
    """Parse, run `command`, print what it says, and return the exit code; errors a user can mend become one message."""
    given = argparse.Namespace(json="--json" in arguments, quiet=False)
    _print_anything()
    try:
        given = parser.parse_args(arguments)
        with redirect_stdout(sys.stderr) if _flag(given, "json") else nullcontext():
            outcome = command(given)
    except KeyboardInterrupt as error:
        return _failed(given, error, 130)
    except Exception as error:
        code = _code_of(error)
        if code is not None:
            return _failed(given, error, code)
        if _flag(given, "json"):
            _print_record({"error": f"{type(error).__name__}: {error}"}, 1)
        raise
    if outcome is None:
        return 0
    if _flag(given, "json"):
        _print_record(outcome.record, outcome.code)
    elif not _flag(given, "quiet"):
        print("\n".join(outcome.lines))
    return outcome.code


def _print_anything() -> None:
    """A character that the terminal's code page lacks is written as an escape: it must not end a finished run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def made(results: "Sequence[Result]", shape: "VideoShape") -> Outcome | None:
    """What to say of the one result of a run; None on ranks that do not write."""
    from kandinsky.output.result import GenerationResult

    if not results:
        return None
    (result,) = results
    assert isinstance(result, GenerationResult)
    size = f"{shape.width}x{shape.height}"
    what = f"{size} image" if shape.is_image else f"{result.num_frames} frames of {size} at {result.fps} fps"
    lines = [f"{result.path}: {what}, seed {result.seed}"]
    for stage, seconds in () if shape.is_image else result.timings.items():
        memory = result.peak_memory.get(stage)
        lines.append(f"{stage:>8} {seconds:8.3f} s" + (f", peak {memory / 2**30:.2f} GiB" if memory else ""))
    record = {**dataclasses.asdict(result), "path": str(result.path), "width": shape.width, "height": shape.height}
    return Outcome(lines, record)


def writes_here(*, each: bool = False) -> bool:
    """Whether this process writes files, so that it has to be able to.

    Args:
        each: of several, each process makes files of its own; else only the first does.
    """
    from kandinsky.parallel.ranks import launched, launched_rank

    return each or not launched() or launched_rank() == 0


def check_and_launch(parsed: argparse.Namespace, arguments: Sequence[str], *, command: str = "generate") -> bool:
    """Start `--num-gpus` processes and wait for them, if there are to be several; whether this process is done.

    Raises:
        ValueError: this machine has no devices for them.
        LaunchError: one of them failed.
    """
    from kandinsky.cli.launch import check_launch, launch
    from kandinsky.parallel.ranks import launched

    check_launch(parsed.num_gpus, parsed.device)
    if parsed.num_gpus == 1 or launched():
        return False
    launch(arguments, parsed.num_gpus, command=command)
    return True


def load_pipeline(parsed: argparse.Namespace, *, prompt: str | None = None) -> "Kandinsky4T2VPipeline":
    """The pipeline that the arguments of `generate` ask for; `prompt` is the one that comes first."""
    from kandinsky.factory import get_T2V_pipeline
    from kandinsky.loading.parts import in_words
    from kandinsky.loading.remembered import forget

    if parsed.retune:
        forget()
    pipe = get_T2V_pipeline(
        parsed.device,
        cache_dir=parsed.weights,
        precision=parsed.precision,
        memory=parsed.memory,
        attention=parsed.attention,
        kernels=parsed.kernels,
        prompt=prompt,
        parallelism=parsed.parallelism,
        loras=loras_of(parsed),
        progress=not (parsed.no_progress or parsed.quiet),
    )
    if pipe.dit.device.type == "cuda" and pipe.ranks.is_main and not parsed.quiet:
        print(f"{in_words(pipe.parts)}; `kandinsky doctor` says why", file=sys.stderr)
    return pipe


def _flag(given: argparse.Namespace, name: str) -> bool:
    return getattr(given, name, False)


def _code_of(error: Exception) -> int | None:
    """The exit code for an error whose message is enough; None if a traceback is needed."""
    if isinstance(error, ValueError):
        return 2
    return 1 if isinstance(error, KandinskyError | OSError) else None


def _failed(given: argparse.Namespace, error: BaseException, code: int) -> int:
    """Say it to the user and to the other processes: one that ends without a word would be waited for."""
    from kandinsky.parallel.watchdog import report_failure

    message = str(error) if code != 130 else "\n".join(["interrupted", *getattr(error, "__notes__", [])])
    print(message if code == 130 else f"error: {message}", file=sys.stderr)
    if _flag(given, "json"):
        _print_record({"error": message}, code)
    report_failure(error)
    return code


def _print_record(record: dict[str, object], code: int) -> None:
    from kandinsky.parallel.ranks import launched

    if code == 0 or not launched():  # else whoever started these processes says it, once
        print(json.dumps({"status": STATUS[code], "exit_code": code, **record}))
