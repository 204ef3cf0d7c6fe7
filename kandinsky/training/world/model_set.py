"""What is in the synthetic world's model set beside networks: its sizes, and the published noise schedule.

python -m kandinsky.training.world.model_set FOLDER
"""

import dataclasses
import json
import sys
from pathlib import Path

from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.checkpoint.random_weights import SCHEDULER
from kandinsky.config import FLASH_512
from kandinsky.training.world.text import TEXT_TOKENS
from kandinsky.user_files.paths import user_path

WORLD = dataclasses.replace(FLASH_512, resolution=128, sizes=((128, 128),), max_seconds=3, text_tokens=TEXT_TOKENS)


def write(folder: Path) -> None:
    """`model_set.json` and `scheduler/`."""
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2, sort_keys=True) + "\n")
    write_model_set(folder, WORLD)


if __name__ == "__main__":
    write(user_path(sys.argv[1], "FOLDER"))
