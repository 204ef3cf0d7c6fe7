"""`kandinsky plan`: what fits into a GPU, without loading weights."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kandinsky.cli.common import Outcome, add_print_arguments, add_shape_arguments, file_argument, model_set_of
from kandinsky.config import PRECISIONS

if TYPE_CHECKING:
    from kandinsky.memory.planner import Plan


def add_plan_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    about = "Say which memory mode fits, and what each needs; no weights are loaded."
    plan = commands.add_parser("plan", help="what fits into this GPU, or another", description=about)
    plan.add_argument("--gpu-memory", type=float, help="free GB (10^9 bytes) of the GPU; default: what is free here")
    plan.add_argument("--host-memory", type=float, help="free GB of the host; default: what is free here")
    add_shape_arguments(plan)
    plan.add_argument("--precision", default="exact", choices=PRECISIONS)
    plan.add_argument(
        "--weights", type=file_argument, default="./weights/", help="folder of the weights, whose headers are read"
    )
    plan.add_argument("--sound", action="store_true", help="also what the models of `generate --sound` need")
    add_print_arguments(plan)
    plan.set_defaults(run=_plan)


def _plan(parsed: argparse.Namespace) -> Outcome:
    import torch

    from kandinsky.checkpoint.locate import locate
    from kandinsky.memory.choose import available_host, compare_modes, free_gpu
    from kandinsky.model.precision import precision_of
    from kandinsky.video_shape import VideoShape

    model_set = model_set_of(parsed)
    shape = VideoShape.from_request(parsed.time_length, parsed.width, parsed.height, model_set=model_set)
    precision = precision_of(parsed.precision)
    if parsed.gpu_memory is None and not torch.cuda.is_available():
        raise ValueError("--gpu-memory is needed on a machine without a CUDA device, in GB")
    gpu = free_gpu(torch.device("cuda", 0)) if parsed.gpu_memory is None else int(parsed.gpu_memory * 1e9)
    host = available_host() if parsed.host_memory is None else int(parsed.host_memory * 1e9)
    paths = locate(
        Path(parsed.weights), model_set=model_set, given={}, local_files_only=True, revision={}, precision=precision
    )
    chosen, found = compare_modes(paths, shape, precision, model_set=model_set, free_gpu=gpu, free_host=host)
    lines = [
        f"{shape.width}x{shape.height}, {shape.seconds} s, {parsed.precision}; GB of 10^9 bytes on the GPU:",
        f"{'mode':44s} {'load':>7s} {'text':>7s} {'sample':>7s} {'decode':>7s} {'host':>7s}",
        *(_row(plan) for plan in found),
        f"chosen: {chosen.name}: {chosen.reason}",
    ]
    sound = _sound(Path(parsed.weights)) if parsed.sound else {}
    lines += [_fitting(what, nbytes, gpu) for what, nbytes in sound.items()]
    plans = {plan.name: {"gpu": dict(plan.peaks), "host": plan.host} for plan in found}
    record: dict[str, object] = {"chosen": chosen.name, "reason": chosen.reason, "bytes": plans}
    return Outcome(lines, {**record, "sound": sound} if sound else record)


def _sound(weights: Path) -> dict[str, int]:
    """Bytes that the sound's models take, once those of the video have left the GPU."""
    from kandinsky.audio.load import sound_needs_in

    models, encoder = sound_needs_in(weights)
    return {"sound": models, "sound with its encoder": models + encoder}


def _fitting(what: str, nbytes: int, gpu: int) -> str:
    from kandinsky.memory.sound import fits

    return f"{what}: {nbytes / 1e9:.2f} GB, {'fits' if fits(nbytes, gpu) else 'does not fit'} once the video is made"


def _row(found: "Plan") -> str:
    peaks = " ".join(f"{found.peaks[stage] / 1e9:7.2f}" for stage in ("load", "text", "sample", "decode"))
    return f"{found.name:44s} {peaks} {found.host / 1e9:7.2f}"
