"""The commands about memory and loading: `kandinsky plan` and `kandinsky convert`."""

import argparse
from typing import TYPE_CHECKING, Any

from kandinsky.cli_run import Outcome, add_print_arguments, add_shape_arguments, model_set_of

if TYPE_CHECKING:
    from kandinsky.planner import Plan


def add_memory_commands(commands: Any) -> None:
    """Add the subcommands to argparse's `commands`."""
    about = "Say which memory mode fits, and what each needs; no weights are loaded."
    plan = commands.add_parser("plan", help="what fits into this GPU, or another", description=about)
    plan.add_argument("--gpu-memory", type=float, help="free GB (10^9 bytes) of the GPU; default: what is free here")
    plan.add_argument("--host-memory", type=float, help="free GB of the host; default: what is free here")
    add_shape_arguments(plan)
    plan.add_argument("--precision", default="exact", choices=("exact", "fast"))
    plan.add_argument("--weights", default="./weights/", help="folder of the weights, whose headers are read")
    about = "Write the DiT's checkpoint as .safetensors beside it, which loads faster; it is then preferred."
    convert = commands.add_parser("convert", help="write a copy that loads faster", description=about)
    convert.add_argument("--weights", default="./weights/", help="folder of the weights")
    convert.add_argument(
        "--precision", default="exact", choices=("exact", "fast"), help="fast: with float8 blocks, half the size"
    )
    convert.add_argument("--device", default="cpu", help="where weights are made float8 (default: cpu)")
    convert.add_argument("--no-progress", action="store_true", help="no progress bar")
    for command, run in ((plan, _plan), (convert, _convert)):
        add_print_arguments(command)
        command.set_defaults(run=run)


def _plan(parsed: argparse.Namespace) -> Outcome:
    from pathlib import Path

    import torch

    from kandinsky.devices import MODULES
    from kandinsky.hub import locate
    from kandinsky.model_needs import needs_from
    from kandinsky.places import free_gpu
    from kandinsky.planner import LADDER, available_host, outcome, plan_or_nearest
    from kandinsky.video_shape import VideoShape

    folder = Path(parsed.weights)
    model_set = model_set_of(parsed)
    shape = VideoShape.from_request(parsed.time_length, parsed.height, parsed.width, model_set=model_set)
    if parsed.gpu_memory is None and not torch.cuda.is_available():
        raise ValueError("--gpu-memory is needed on a machine without a CUDA device, in GB")
    gpu = free_gpu(torch.device("cuda", 0)) if parsed.gpu_memory is None else int(parsed.gpu_memory * 1e9)
    host = available_host() if parsed.host_memory is None else int(parsed.host_memory * 1e9)
    settings = {"model_set": model_set, "precision": parsed.precision}
    paths = locate(folder, given={}, local_files_only=True, revision={}, **settings)
    needs_of = needs_from(paths, dict.fromkeys(MODULES, torch.bfloat16), text_tokens=model_set.text_tokens)
    needs = needs_of(shape, parsed.precision)
    chosen = plan_or_nearest(needs_of, shape, parsed.precision, free_gpu=gpu, free_host=host, model_set=model_set)
    found = [outcome(needs, modes, memory_saving=saving) for saving in (False, True) for modes in LADDER.values()]
    lines = [
        f"{shape.width}x{shape.height}, {shape.seconds} s, {parsed.precision}; GB of 10^9 bytes on the GPU:",
        f"{'mode':44s} {'load':>7s} {'text':>7s} {'sample':>7s} {'decode':>7s} {'host':>7s}",
        *(_row(plan) for plan in found),
        f"chosen: {chosen.name}: {chosen.reason}",
    ]
    plans = {plan.name: {"gpu": dict(plan.peaks), "host": plan.host} for plan in found}
    return Outcome(lines, {"chosen": chosen.name, "reason": chosen.reason, "bytes": plans})


def _row(found: "Plan") -> str:
    peaks = " ".join(f"{found.peaks[stage] / 1e9:7.2f}" for stage in ("load", "text", "sample", "decode"))
    return f"{found.name:44s} {peaks} {found.host / 1e9:7.2f}"


def _convert(parsed: argparse.Namespace) -> Outcome:
    from pathlib import Path

    from kandinsky.convert import convert
    from kandinsky.devices import check_device

    device = check_device(parsed.device, "device")
    progress = not (parsed.no_progress or parsed.quiet)
    path = convert(Path(parsed.weights), precision=parsed.precision, device=device, progress=progress)
    return Outcome([str(path)], {"path": str(path)})
