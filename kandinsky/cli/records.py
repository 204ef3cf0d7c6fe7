"""`kandinsky resume`, `show` and `replay`: finish what was interrupted, and read and repeat how a file was made."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from kandinsky.cli.common import (
    Outcome,
    add_no_distributed,
    add_print_arguments,
    file_argument,
    heed_no_distributed,
    made,
    writes_here,
)
from kandinsky.cli.extend import replay_extension, resume_extension
from kandinsky.cli.inputs import add_file_arguments, check_same, inputs_again
from kandinsky.cli.loading import devices_as, loading_as
from kandinsky.cli.loras import add_lora_argument, loras_of, merge_recorded_, recorded_loras


def add_record_commands(commands: Any) -> None:
    """Add the subcommands to argparse's `commands`."""
    resume = commands.add_parser("resume", help="finish a video whose latents were saved")
    resume.add_argument(
        "file", type=file_argument, help="a .latents.safetensors file, or the folder .pieces of an unfinished extension"
    )
    resume.add_argument("--video", type=file_argument, help="of an extension, if its video has moved")
    resume.add_argument("--save-path", type=file_argument, help="default: what the interrupted command was to write")
    resume.add_argument(
        "--weights", type=file_argument, help="folder of the weights, default: those of the interrupted command"
    )
    resume.add_argument("--device", help="default: that of the interrupted command")
    add_lora_argument(resume)
    show = commands.add_parser("show", help="print how a file was made")
    show.add_argument(
        "file", type=file_argument, help="a video, an image, a folder of png frames or a .latents.safetensors file"
    )
    replay = commands.add_parser("replay", help="make a file again from its record")
    replay.add_argument("file", type=file_argument, help="as for show")
    replay.add_argument("--save-path", type=file_argument, help="default: the file's name with -replay")
    replay.add_argument(
        "--weights", type=file_argument, default="./weights/", help="folder of the weights (default: ./weights/)"
    )
    replay.add_argument("--device", help="default: the kind of device that made the file")
    add_file_arguments(replay)
    add_lora_argument(replay)
    add_no_distributed(replay)
    for command in (resume, replay):
        command.add_argument("--no-progress", action="store_true", help="no progress bars")
    for command, run in ((resume, _resume), (show, _show), (replay, _replay)):
        add_print_arguments(command)
        command.set_defaults(run=run)


def _resume(parsed: argparse.Namespace) -> Outcome | None:
    if Path(parsed.file).is_dir():
        return resume_extension(parsed)
    from kandinsky.loading.finisher import load_finisher, model_set_beside
    from kandinsky.output.remaining import remaining_of
    from kandinsky.output.unfinished import load_unfinished

    unfinished = load_unfinished(parsed.file)[0]
    source, origin = unfinished.vae, unfinished.record.origin
    if source is None and parsed.weights is None:
        raise ValueError(f"{parsed.file} does not name its weights; name their folder with --weights")
    model_set = model_set_beside(source, parsed.weights)
    remaining = remaining_of(parsed.file, parsed.save_path, model_set=model_set)
    progress = not (parsed.no_progress or parsed.quiet)
    fingerprint = origin and origin.weights.get("vae")
    place = {"weights": parsed.weights, "device": parsed.device}
    finisher = load_finisher(source, **place, fingerprint=fingerprint, progress=progress)
    result = finisher.finish(remaining)
    line = f"{result.path}: {result.num_frames} frames, seed {result.seed}; {parsed.file} is not needed any more"
    return Outcome([line], {**dataclasses.asdict(result), "path": str(result.path)})


def _show(parsed: argparse.Namespace) -> Outcome:
    from kandinsky.errors import RecordError
    from kandinsky.output.read_record import read_record

    sound = _sound_of(parsed.file)
    try:
        record = dataclasses.asdict(read_record(parsed.file))
    except RecordError:
        if sound is None:
            raise
        record = None  # of a video that another program has made
    lines = _described(record or {})
    lines += [f"sound {line}" for line in _described(sound or {})]
    return Outcome(lines, {"record": record, "sound": sound} if sound else {"record": record})


def _described(record: dict[str, Any]) -> list[str]:
    """A line for each field that says something."""
    fields = {**record, **(record.get("origin") or {})}
    fields.pop("origin", None)
    lines = []
    for name, value in fields.items():
        shown = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else value
        if value is not None:
            lines.append(f"{name}: {shown}")
    return lines


def _sound_of(file: str) -> dict[str, Any] | None:
    """The record of the sound in a video; None if it has none."""
    from kandinsky.audio.record import read_sound_record
    from kandinsky.output.paths import VIDEO_CODECS

    path = Path(file)
    if not path.is_file() or path.suffix.lower() not in VIDEO_CODECS:
        return None
    found = read_sound_record(path)
    return None if found is None else dataclasses.asdict(found)


def _replay(parsed: argparse.Namespace) -> Outcome | None:
    from kandinsky.checkpoint.model_set import read_model_set
    from kandinsky.config import FLASH_512
    from kandinsky.factory import get_T2V_pipeline
    from kandinsky.output.as_recorded import as_recorded
    from kandinsky.output.options import OutputOptions
    from kandinsky.output.read_record import read_record
    from kandinsky.output.record import differences
    from kandinsky.request import check_targets, request_of

    heed_no_distributed(parsed)
    record = read_record(parsed.file)
    save_path = parsed.save_path or _replayed(parsed.file)
    inputs = inputs_again(record, parsed, Path(parsed.file).parent)
    if record.given is not None and record.given.seeds is not None:
        options = as_recorded(OutputOptions(type="file"), record, save_path)
        encoding = {name: getattr(options, name) for name in ("fps", "crf", "codec")}
        return replay_extension(record, str(inputs.video), save_path, encoding, parsed)
    request = request_of(
        record.prompt,
        save_path,
        time_length=record.time_length,
        width=record.width,
        height=record.height,
        seed=record.seed,
        model_set=read_model_set(Path(parsed.weights)) or FLASH_512,
        options=as_recorded(OutputOptions(type="file"), record, save_path),
        inputs=inputs,
    )
    if request.given is not None:
        check_same(record, request.given.marks)
    if writes_here():
        check_targets(request)
    loras = recorded_loras(record, loras_of(parsed))
    pipe = get_T2V_pipeline(
        parsed.device or devices_as(record),
        cache_dir=parsed.weights,
        prompt=record.prompt,
        progress=not (parsed.no_progress or parsed.quiet),
        **loading_as(record),
    )
    merge_recorded_(pipe, loras)
    for line in differences(record, pipe.origin) if writes_here() else ():
        print(f"warning: the result may differ: {line}", file=sys.stderr)
    if _sound_of(parsed.file) is not None and writes_here():
        print(
            "warning: its sound is not made again: `kandinsky sound` makes it, as `kandinsky show` says",
            file=sys.stderr,
        )
    return made(pipe.run(request), request.shape)


def _replayed(file: str) -> str:
    from kandinsky.output.unfinished import SUFFIX

    path = Path(file)
    if file.endswith(SUFFIX):
        raise ValueError(f"{file} has latents; name a file for the video with --save-path")
    return str(path.with_name(f"{path.stem}-replay{path.suffix}")) + ("/" if path.is_dir() else "")
