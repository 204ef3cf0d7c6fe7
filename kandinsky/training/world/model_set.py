"""What is in the synthetic world's model set beside networks: its sizes, and the published noise schedule.

python -m kandinsky.training.world.model_set FOLDER
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from kandinsky.atomic import write_text
from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.checkpoint.random_weights import SCHEDULER
from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.config import FLASH_512
from kandinsky.training.world.text import TEXT_TOKENS
from kandinsky.user_files.paths import path_argument

WORLD = dataclasses.replace(FLASH_512, resolution=128, sizes=((128, 128),), max_seconds=3, text_tokens=TEXT_TOKENS)


def write(folder: Path) -> None:
    """`model_set.json` and `scheduler/`."""
    with replacing_set(folder) as new:
        (new / "scheduler").mkdir()
        write_text(new / "scheduler" / "scheduler_config.json", json.dumps(SCHEDULER, indent=2, sort_keys=True) + "\n")
        write_model_set(new, WORLD)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=path_argument, help="of the model set")
    write(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main(sys.argv[1:])
