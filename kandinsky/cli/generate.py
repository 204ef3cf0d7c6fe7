"""`kandinsky generate`: one video or image, or with `--prompts FILE` a batch (see `batch`)."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kandinsky.cli.common import (
    PRECISION,
    Defaults,
    Outcome,
    add_backend_arguments,
    add_no_distributed,
    add_output_arguments,
    add_print_arguments,
    add_shape_arguments,
    check_and_launch,
    file_argument,
    heed_no_distributed,
    load_pipeline,
    made,
    model_set_of,
    output_settings,
    writes_here,
)
from kandinsky.cli.inputs import add_input_arguments, input_settings
from kandinsky.cli.loras import add_lora_argument, loras_of
from kandinsky.config import MEMORY_MODES, PARALLELISMS, PRECISIONS, ModelSet

if TYPE_CHECKING:
    from kandinsky.batch.prompts import Item
    from kandinsky.batch.run import BatchResult
    from kandinsky.cli.estimate import Forecast
    from kandinsky.pipeline import Kandinsky4T2VPipeline
    from kandinsky.video_shape import VideoShape

Load = Callable[..., "Kandinsky4T2VPipeline"]
"""As `common.load_pipeline`: (parsed arguments, prompt=the first one, if it is known) -> pipeline."""
DEMO_PROMPT = (
    "Several giant wooly mammoths approach treading through a snowy meadow, their long wooly fur lightly blows in the "
    "wind as they walk, snow covered trees and dramatic snow capped mountains in the distance"
)
"""The published demonstration's prompt."""


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `generate`; their defaults are the published demonstration."""
    parser.formatter_class = Defaults
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--text", help=f"the prompt; default: {DEMO_PROMPT}")
    asked.add_argument(
        "--prompts",
        metavar="FILE",
        type=file_argument,
        help="many prompts: a .txt with one a line, or a .jsonl with an object a line",
    )
    parser.add_argument(
        "--save-path",
        type=file_argument,
        help="file to write; default ./test.mp4, or ./test.png for an image. With --prompts, a folder",
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--seed", type=int, default=42, help="same seed, same video; with --prompts that of the first, then counting up"
    )
    add_shape_arguments(parser)
    add_input_arguments(parser)
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, devices, how they are used, and what is printed."""
    _add_loading_arguments(parser)
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    add_print_arguments(parser)
    # torch.distributed.launch passes this one; the rank itself comes from the environment.
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def _add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """What is loaded, and where it runs; see `common.load_pipeline`."""
    parser.add_argument(
        "--weights",
        type=file_argument,
        default="./weights/",
        help="folder of the weights (weights/tiny: a tiny model, for a try)",
    )
    parser.add_argument("--device", default="cuda", help="where everything runs: cuda, cuda:1, cpu, mps")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes to start, one for each GPU (or on the CPU)")
    parser.add_argument(
        "--parallelism",
        default="tensor",
        choices=PARALLELISMS,
        help="how several GPUs work: on one video together, or (none) each on its own",
    )
    add_lora_argument(parser)
    add_no_distributed(parser)
    parser.add_argument("--precision", default="exact", choices=PRECISIONS, help=PRECISION)
    parser.add_argument(
        "--memory",
        default="auto",
        choices=("auto", *MEMORY_MODES),
        help="where weights are while they are not used; auto: the fastest that fits",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="with --prompts: make them on every node of a Ray cluster (auto, or HOST:PORT)",
    )
    add_backend_arguments(parser)


def generate(parsed: argparse.Namespace, *, arguments: Sequence[str], load: Load = load_pipeline) -> Outcome | None:
    """Make what was asked for; None in a process that does not write.

    Args:
        arguments: of the command, for processes that it starts.
        load: makes the pipeline, once everything else is known to be right.

    Raises:
        ValueError: an argument is not what it may be; nothing was loaded.
    """
    from kandinsky.output.inputs import Inputs
    from kandinsky.output.options import OutputOptions
    from kandinsky.request import check_targets, request_of

    heed_no_distributed(parsed, num_gpus=parsed.num_gpus)
    model_set = model_set_of(parsed)
    loras_of(parsed)
    if parsed.prompts is not None:
        return _generate_batch(parsed, model_set, arguments=arguments, load=load)
    if parsed.ray is not None:
        raise ValueError("--ray is for a batch: it needs --prompts")
    save_path = parsed.save_path or ("./test.png" if parsed.time_length == 0 else "./test.mp4")
    request = request_of(
        DEMO_PROMPT if parsed.text is None else parsed.text,
        save_path,
        time_length=parsed.time_length,
        width=parsed.width,
        height=parsed.height,
        seed=parsed.seed,
        model_set=model_set,
        options=OutputOptions(type="file", **output_settings(parsed)),
        inputs=Inputs(**input_settings(parsed)),
    )
    if writes_here():
        check_targets(request)
    if check_and_launch(parsed, arguments):
        return None
    pipe = load(parsed, prompt=request.jobs[0].prompt)
    forecast = _forecast(pipe, request.shape, quiet=parsed.quiet)
    return made(pipe.run(request, on_step=forecast), request.shape)


def _forecast(pipe: "Kandinsky4T2VPipeline", shape: "VideoShape", *, quiet: bool) -> "Forecast | None":
    """What says how long it will take, and has begun to; None where it is not said."""
    from kandinsky.cli.estimate import Forecast

    if pipe.dit.device.type == "cuda" or pipe.ranks.size > 1 or quiet:
        return None
    steps = len(pipe.parts.schedule.timesteps)
    return Forecast(pipe.dit, shape, text_tokens=pipe.model_set.text_tokens, steps=steps)


def _generate_batch(
    parsed: argparse.Namespace, model_set: ModelSet, *, arguments: Sequence[str], load: Load
) -> Outcome | None:
    """Make what is not done yet; exit code 1 if an item failed.

    Raises:
        ValueError: an argument, or a line of the file, is not what it may be; nothing was loaded.
    """
    from kandinsky.batch.prompts import read_prompts
    from kandinsky.batch.run import check_folder, run_batch

    if parsed.save_path is None:
        raise ValueError("--prompts needs --save-path, the folder for the videos")
    names = ("seed", "time_length", "width", "height")
    settings = {name: getattr(parsed, name) for name in names} | output_settings(parsed) | input_settings(parsed)
    if loras := {Path(file).stem: weight for file, weight in loras_of(parsed).items()}:
        settings["loras"] = loras
    items = read_prompts(parsed.prompts, settings, model_set=model_set)
    if writes_here(each=parsed.parallelism == "none"):
        check_folder(Path(parsed.save_path), items)
    if parsed.ray is not None and parsed.retune:
        raise ValueError("--retune with --ray: other machines remember on their own; run `kandinsky generate` there")
    if parsed.ray is not None:
        result = _on_cluster(parsed, items)
    elif check_and_launch(parsed, arguments):
        return None
    else:
        pipe = load(parsed)
        if items:
            _forecast(pipe, items[0].shape, quiet=parsed.quiet)  # for each that is like the first
        result = run_batch(pipe, items, parsed.save_path)
    if result is None:
        return None
    rate = 3600 * result.made / result.seconds
    counts = f"{result.made} made, {result.skipped} done before, {len(result.failed)} failed"
    lines = [f"{parsed.save_path}: {counts}; {rate:.1f} an hour", f"report: {result.report}"]
    lines += [f"failed: {name}: {error}" for name, error in result.failed.items()]
    record: dict[str, object] = {
        "folder": parsed.save_path,
        "report": str(result.report),
        "made": result.made,
        "skipped": result.skipped,
        "failed": result.failed,
        "seconds": result.seconds,
        "per_hour": rate,
    }
    return Outcome(lines, record, 1 if result.failed else 0)


def _on_cluster(parsed: argparse.Namespace, items: "Sequence[Item]") -> "BatchResult":
    """The batch on every node of a Ray cluster.

    Raises:
        ValueError: there is no such cluster, or an item that cannot come back from it.
    """
    from kandinsky.cli.serve import open_cluster
    from kandinsky.serving.batch import Workers, check_items, run_batch_on
    from kandinsky.serving.worker import Place

    check_items(items)
    place = Place(
        weights=str(Path(parsed.weights).absolute()),
        device=parsed.device,
        precision=parsed.precision,
        memory=parsed.memory,
        parallelism=parsed.parallelism,
        attention=parsed.attention,
        kernels=parsed.kernels,
        processes=1 if parsed.parallelism == "none" else parsed.num_gpus,
        loras={str(Path(file).absolute()): weight for file, weight in loras_of(parsed).items()},
    )
    cluster = open_cluster(parsed.ray, place)
    try:
        room = cluster.room()
        workers = Workers(cluster.starts(0, room))
        cluster.grow(workers.add, room)
        return run_batch_on(workers, items, parsed.save_path)
    finally:
        cluster.close()
