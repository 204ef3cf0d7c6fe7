"""A trained DiT as a published checkpoint: bfloat16, under the name that the model set gives it.

python -m kandinsky.training.publish checkpoint-00004000/ema.safetensors weights/mine
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.config import FLASH_512
from kandinsky.user_files.paths import path_argument


def publish(source: Path, folder: Path) -> Path:
    """Write the state dict of `source` (a DiT's `.safetensors`) to `folder`.

    A DiT that stands there is replaced, and copies that `kandinsky convert` made of it are removed.
    """
    state = {name: value.bfloat16() for name, value in load_file(source).items()}
    with replacing_set(folder) as new:
        torch.save(state, new / FLASH_512.dit_file)
    return folder / FLASH_512.dit_file


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=path_argument, help="ema.safetensors of a checkpoint")
    parser.add_argument("folder", type=path_argument, help="of the model set")
    given = parser.parse_args(arguments)
    print(publish(given.source, given.folder))


if __name__ == "__main__":
    main(sys.argv[1:])
