"""A trained DiT as a published checkpoint: bfloat16, under the name that the model set gives it.

python -m kandinsky.training.publish checkpoint-00004000/ema.safetensors weights/mine
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from kandinsky.atomic import replacing
from kandinsky.config import FLASH_512
from kandinsky.user_files.paths import path_argument


def publish(source: Path, folder: Path) -> Path:
    """Write the state dict of `source` (a DiT's `.safetensors`) to `folder`; what stands there is replaced."""
    state = {name: value.bfloat16() for name, value in load_file(source).items()}
    target = folder / FLASH_512.dit_file
    with replacing(target) as partial:
        torch.save(state, partial)
    return target


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=path_argument, help="ema.safetensors of a checkpoint")
    parser.add_argument("folder", type=path_argument, help="of the model set")
    given = parser.parse_args(arguments)
    print(publish(given.source, given.folder))


if __name__ == "__main__":
    main(sys.argv[1:])
