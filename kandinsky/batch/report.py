"""The report of a batch: a JSON line for each thing that happened, which also tells a restart what is done.

Lines are only appended, each by one write, so that several processes may share the file and a killed one leaves all
earlier lines whole; a last line that was cut off is passed over. `status` is `started`, `done` or `failed`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kandinsky.atomic import remove_partials
from kandinsky.batch.prompts import Item
from kandinsky.output.unfinished import SUFFIX
from kandinsky.output.video import TAGS_SUFFIX

NAME = "report.jsonl"


class Report:
    """The report in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / NAME

    def path_of(self, item: Item) -> Path:
        """Where an item's result goes."""
        assert item.job.path is not None
        return self.folder / item.job.path

    def started(self, item: Item) -> None:
        """Note what stands at the item's place before: a different file afterwards is the finished one."""
        self._append(item, "started", {"before": self._identity(item)})

    def done(self, item: Item, facts: Mapping[str, object]) -> None:
        """Note a finished file; `facts` go into the line."""
        self._append(item, "done", {**facts, "file": self._identity(item)})

    def failed(self, item: Item, error: BaseException) -> None:
        """Note why; and what stands at the item's place, where `kandinsky resume` may still put the result."""
        self._append(item, "failed", {"error": f"{type(error).__name__}: {error}", "before": self._identity(item)})

    def left(self, items: Sequence[Item]) -> list[Item]:
        """Items whose file is not there, or not what was asked for; what killed processes left of them is removed.

        A file that was put in its place later than the report knows (by a process that was killed then, or by
        `kandinsky resume`) is noted here: what stood there when the item was started or failed is known.
        """
        last, left = self._last_lines(), []
        for item in items:
            line, found = last.get(item.name, {}), self._identity(item)
            status = line.get("status") if found is not None and line.get("asked") == dict(item.asked) else None
            if status == "done":
                continue
            self._clean(item)
            if status in ("started", "failed") and line.get("before") != found:
                self.done(item, {"seed": line["seed"]})  # one that was drawn is not this run's
            else:
                left.append(item)
        return left

    def _clean(self, item: Item) -> None:
        path = self.path_of(item)
        remove_partials(path)
        remove_partials(path.with_suffix(TAGS_SUFFIX))
        remove_partials(path.with_name(f"{path.stem}{SUFFIX}"))

    def _last_lines(self) -> dict[str, dict]:
        """The last line of each file's name."""
        if not self.path.exists():
            return {}
        found = {}
        for text in self.path.read_bytes().split(b"\n"):
            try:
                line = json.loads(text)
                found[line["asked"]["save_path"]] = line
            except (ValueError, KeyError, TypeError):  # blank, or cut off when its writer was killed
                continue
        return found

    def _identity(self, item: Item) -> list[int] | None:
        """Of what stands at the item's place; every complete result replaces it by another one."""
        try:
            stat = self.path_of(item).stat()
        except FileNotFoundError:
            return None
        return [stat.st_ino, stat.st_mtime_ns, stat.st_size]

    def _append(self, item: Item, status: str, facts: Mapping[str, object]) -> None:
        line = {"status": status, "number": item.number, "asked": dict(item.asked), "seed": item.job.seed, **facts}
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            # The line break before it ends a line that another process was killed in.
            os.write(file, f"\n{json.dumps(line)}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
