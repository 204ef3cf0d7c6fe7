"""`kandinsky doctor`: what runs here and why, and whether a video could be made; what a bug report should hold."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kandinsky.cli.common import Outcome, add_print_arguments, file_argument
from kandinsky.config import FLASH_512, PRECISIONS


def add_doctor_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    about = (
        "Say what runs on this machine and why: versions, GPUs, compilers, ffmpeg, attention backends and their times, "
        "the memory mode that would be taken, weights found and missing. No path of your home is told, no prompt. The "
        "exit code is 1 if no video could be made here."
    )
    doctor = commands.add_parser("doctor", help="what runs here, and why", description=about)
    doctor.add_argument("--weights", type=file_argument, default="./weights/", help="folder of the weights")
    doctor.add_argument("--device", help="cuda, cuda:1, cpu, mps; default: the first GPU, else the CPU")
    doctor.add_argument("--precision", default="exact", choices=PRECISIONS)
    doctor.add_argument("--retune", action="store_true", help="forget which attention was the fastest")
    add_print_arguments(doctor)
    doctor.set_defaults(run=_doctor)


def _doctor(parsed: argparse.Namespace) -> Outcome:
    from kandinsky.cli import facts
    from kandinsky.loading.remembered import forget

    if parsed.retune:
        forget()
    folder = Path(parsed.weights)
    found, problems = facts.without_home(
        [*gathered(folder, parsed.device, parsed.precision)], known=[folder.absolute()]
    )
    verdict = [f"a video cannot be made here: {problem}" for problem in problems] or ["a video can be made here"]
    lines = [*_lines(found), *verdict]
    return Outcome(lines, {**found, "problems": problems}, 1 if problems else 0)


def gathered(folder: Path, device_name: str | None, precision_name: str) -> tuple[dict[str, Any], list[str]]:
    """All facts by section, and what stands in the way of a video.

    Args:
        folder: of the weights.
        device_name: as the user says it; None is the first GPU, or the CPU.
        precision_name: of `PRECISIONS`.

    Raises:
        ValueError: the device does not exist.
    """
    import torch

    from kandinsky.checkpoint.locate import WeightPaths, locate
    from kandinsky.checkpoint.model_set import read_model_set
    from kandinsky.cli import facts
    from kandinsky.loading.devices import check_precision, device_of
    from kandinsky.model.fused_support import first_line
    from kandinsky.model.precision import precision_of

    device = device_of(device_name or ("cuda" if torch.cuda.is_available() else "cpu"), "device")
    precision = precision_of(precision_name)
    problems: list[str] = []
    model_set = FLASH_512

    def standing() -> WeightPaths:
        return locate(folder, model_set=model_set, given={}, local_files_only=True, revision={}, precision=precision)

    try:
        model_set = read_model_set(folder) or FLASH_512
        check_precision(precision, device, None)
        precision.operations("auto", device)
    except Exception as error:  # noqa: BLE001  # a doctor says what is wrong, and does not die of it
        problems.append(first_line(error))
    found: dict[str, Any] = {
        "system": facts.system(),
        "gpus": facts.gpus(),
        "tools": facts.tools(),
        "device": str(device),
        "weights": facts.weights(folder, model_set, precision),
    }
    missing = [name for name, said in found["weights"].items() if not said.startswith("found")]
    facts_that_may_fail: dict[str, Callable[[], Any]] = {
        "attention": lambda: facts.attention(device, precision.attention),
        "memory mode": lambda: facts.mode(standing(), model_set, precision, device),
    }
    if missing:
        facts_that_may_fail.pop("memory mode")
    for name, fact in facts_that_may_fail.items():
        try:
            found[name] = fact()
        except Exception as error:  # noqa: BLE001  # likewise
            found[name] = first_line(error)
            problems.append(f"{name}: {found[name]}")
    problems += [f"weights: {name}: {found['weights'][name]}" for name in missing]
    problems += [f"ffmpeg: {found['tools']['ffmpeg']}"] if found["tools"]["ffmpeg"].startswith("no") else []
    return found, problems


def _lines(found: Mapping[str, Any], indent: str = "") -> list[str]:
    """Facts for people: a line each, what belongs together indented."""
    lines: list[str] = []
    for name, value in found.items():
        inner = value if isinstance(value, list) else [value]
        if not inner:
            lines.append(f"{indent}{name}: none")
        for one in inner:
            if isinstance(one, Mapping):
                lines += [f"{indent}{name}:", *_lines(one, indent + "  ")]
            else:
                lines.append(f"{indent}{name}: {one}")
    return lines
