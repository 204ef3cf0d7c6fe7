"""`kandinsky extend`: go on from a video; and `resume` and `replay` for what it makes."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kandinsky.cli.common import (
    Defaults,
    Outcome,
    add_encoding_arguments,
    check_and_launch,
    encoding_settings,
    file_argument,
    heed_no_distributed,
    load_pipeline,
    writes_here,
)
from kandinsky.cli.generate import add_run_arguments
from kandinsky.cli.loras import loras_of, merge_recorded_, recorded_loras
from kandinsky.config import FLASH_512

if TYPE_CHECKING:
    from kandinsky.extend.plan import Extension
    from kandinsky.output.record import Record
    from kandinsky.output.result import GenerationResult


def add_extend_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `extend`."""
    parser.formatter_class = Defaults
    parser.add_argument("file", type=file_argument, help="the video that is gone on with")
    parser.add_argument("--text", required=True, help="the prompt")
    parser.add_argument("--seconds", type=int, required=True, help="that come to the video's own")
    parser.add_argument("--overlap", type=int, default=1, help="seconds that each piece knows of what came before it")
    parser.add_argument("--save-path", type=file_argument, help="file to write; default: the video's with -extended")
    add_encoding_arguments(parser)
    parser.add_argument("--seed", type=int, default=42, help="of the first piece; the next ones count up")
    parser.add_argument("--width", type=int, help="pixels; default: by the video's proportions")
    parser.add_argument("--height", type=int, help="pixels; default: by the video's proportions")
    parser.add_argument("--fit", help="how frames get to another size: cover (and be cropped), contain, stretch")
    add_run_arguments(parser)


def extend(parsed: argparse.Namespace, *, arguments: Sequence[str]) -> Outcome | None:
    """Go on from a video; None in a process that does not write.

    Raises:
        ValueError: an argument is not what it may be; nothing was loaded.
    """
    heed_no_distributed(parsed, num_gpus=parsed.num_gpus)
    names = ("seconds", "overlap", "width", "height", "seed", "fit")
    asked = {name: getattr(parsed, name) for name in names} | encoding_settings(parsed)
    places = (parsed.file, parsed.text, parsed.save_path)
    if writes_here():
        _checked(places, asked, parsed.weights)
    if check_and_launch(parsed, arguments, command="extend"):
        return None
    return _said(load_pipeline(parsed, prompt=parsed.text).extend(*places, **asked))


def resume_extension(parsed: argparse.Namespace) -> Outcome | None:
    """Go on with an extension whose folder of finished pieces this is."""
    from kandinsky.extend.pieces import SUFFIX, read_asked
    from kandinsky.output.record import Record

    folder = Path(parsed.file)
    found = read_asked(folder)
    asked, record = dict(found["asked"]), Record.from_json(found["record"], folder)
    video, weights = parsed.video or asked.pop("video"), parsed.weights or found["weights"]
    sha256, text = asked.pop("sha256"), asked.pop("text")
    if video is None or weights is None:
        raise ValueError(
            f"{folder} does not name its {'weights' if weights is None else 'video'}: name it with --weights, --video"
        )
    asked.pop("video", None)
    target = folder.parent / folder.name.removesuffix(SUFFIX)
    if asked.pop("save_path") != target.name:
        raise ValueError(f"{folder} was renamed; its name says which file it is for")
    places = (video, text, target)
    extension = _checked(places, asked, weights)
    if extension.source.mark.sha256 != sha256:
        raise ValueError(f"video={str(video)!r} is not the one that was gone on with: name that with --video")
    return _run_as(record, places, asked, parsed, weights)


def replay_extension(
    record: "Record", video: str, save_path: str, encoding: Mapping[str, Any], parsed: Any
) -> Outcome | None:
    """Make a file of `extend` again."""
    given = record.given
    assert given is not None
    asked = {
        "seconds": record.time_length,
        "overlap": given.overlap,
        "width": record.width,
        "height": record.height,
        "seed": record.seed,
        "fit": given.fit,
        **encoding,
    }
    places = (video, record.prompt, save_path)
    extension = _checked(places, asked, parsed.weights)
    if extension.source.mark.sha256 != given.inputs["video"]["sha256"]:
        raise ValueError("video has other pixels than the one that was gone on with; name that one with --video")
    return _run_as(record, places, asked, parsed, parsed.weights)


def _checked(places: tuple[Any, Any, Any], asked: Mapping[str, Any], weights: str) -> "Extension":
    """The extension that will be made, checked before weights are loaded."""
    from kandinsky.checkpoint.model_set import read_model_set
    from kandinsky.extend.pieces import Pieces
    from kandinsky.extend.plan import check_extension_target, extension_of
    from kandinsky.output.options import OutputOptions

    names = ("fps", "crf", "codec", "metadata")
    options = OutputOptions(type="file", **{name: asked[name] for name in names if name in asked})
    rest = {name: value for name, value in asked.items() if name not in names}
    model_set = read_model_set(Path(weights)) or FLASH_512
    extension = extension_of(*places, **rest, model_set=model_set, options=options)
    check_extension_target(extension)
    Pieces(extension)
    return extension


def _run_as(
    record: "Record", places: tuple[Any, Any, Any], asked: Mapping[str, Any], parsed: argparse.Namespace, weights: str
) -> Outcome | None:
    """Load what a record was made with, and make an extension."""
    from kandinsky.cli.loading import devices_as, loading_as
    from kandinsky.factory import get_T2V_pipeline
    from kandinsky.output.record import differences

    progress = not (parsed.no_progress or parsed.quiet)
    device = parsed.device or devices_as(record)
    loras = recorded_loras(record, loras_of(parsed))
    pipe = get_T2V_pipeline(device, cache_dir=weights, prompt=record.prompt, progress=progress, **loading_as(record))
    merge_recorded_(pipe, loras)
    for line in differences(record, pipe.origin):
        print(f"warning: the result may differ: {line}", file=sys.stderr)
    return _said(pipe.extend(*places, **asked))


def _said(result: "GenerationResult | None") -> Outcome | None:
    if result is None:
        return None
    line = f"{result.path}: {result.num_frames} frames at {result.fps} fps, seed {result.seed}"
    lines = [line, *(f"{stage:>8} {seconds:8.3f} s" for stage, seconds in result.timings.items())]
    return Outcome(lines, {**dataclasses.asdict(result), "path": str(result.path)})
