"""`kandinsky interpolate`: a video that exists, with more frames a second."""

import argparse
from typing import Any

from kandinsky.cli.common import INTERPOLATE_WITH, Outcome, add_print_arguments, file_argument


def add_interpolate_command(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    about = "Make frames between the frames of a video: the same length, more frames a second. Sound is not copied."
    command = commands.add_parser("interpolate", help="make a video smooth", description=about)
    command.add_argument("file", type=file_argument, help="a video")
    command.add_argument("--factor", type=int, default=3, help="2, 3 or 4 times as many frames a second (default: 3)")
    command.add_argument("--save-path", type=file_argument, help="default: the file's name with -smooth")
    command.add_argument("--interpolate-with", help=INTERPOLATE_WITH)
    command.add_argument("--device", help="where the network runs: cuda, cuda:1, cpu; default: cuda where there is one")
    command.add_argument("--crf", type=int, help="quality of the new file; default: the codec's")
    command.add_argument("--codec", help="h264, hevc or vp9; the default is the ending's")
    add_print_arguments(command)
    command.set_defaults(run=_interpolate)


def _interpolate(parsed: argparse.Namespace) -> Outcome:
    import torch

    from kandinsky.loading.devices import device_of
    from kandinsky.output.options import OutputOptions
    from kandinsky.output.smooth_file import smooth, smoothing_of

    usual = "cuda" if torch.cuda.is_available() else "cpu"
    smoothing = smoothing_of(
        parsed.file,
        parsed.save_path,
        factor=parsed.factor,
        way=parsed.interpolate_with,
        options=OutputOptions(type="file", crf=parsed.crf, codec=parsed.codec),
        device=device_of(parsed.device or usual, "device"),
    )
    count, fps = smooth(smoothing), float(smoothing.video.fps * smoothing.factor)
    record: dict[str, object] = {"path": str(smoothing.path), "num_frames": count, "fps": fps, "with": smoothing.way}
    return Outcome([f"{smoothing.path}: {count} frames at {fps:g} fps, made with {smoothing.way}"], record)
