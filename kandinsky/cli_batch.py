"""`kandinsky generate --prompts FILE`: a batch, see `batch`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kandinsky.cli_run import Outcome, check_and_launch, load_pipeline, output_settings
from kandinsky.config import ModelSet


def generate_batch(parsed: argparse.Namespace, model_set: ModelSet, *, arguments: Sequence[str]) -> Outcome | None:
    """Make what is not done yet; exit code 1 if an item failed.

    Raises:
        ValueError: an argument, or a line of the file, is not what it may be; nothing was loaded.
    """
    from kandinsky.batch import check_folder, run_batch
    from kandinsky.prompts import read_prompts

    if parsed.save_path is None:
        raise ValueError("--prompts needs --save-path, the folder for the videos")
    names = ("seed", "time_length", "width", "height")
    settings = {name: getattr(parsed, name) for name in names} | output_settings(parsed)
    items = read_prompts(parsed.prompts, settings, model_set=model_set)
    check_folder(Path(parsed.save_path))
    if check_and_launch(parsed, arguments):
        return None
    result = run_batch(load_pipeline(parsed), items, parsed.save_path)
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
