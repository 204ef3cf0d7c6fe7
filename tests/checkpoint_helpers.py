"""What tests of weights share: the tiny random weights as tensors and as folders of several kinds."""

import json
import shutil
from functools import cache
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import TINY
from safetensors.torch import load_file, save_file
from torch import Tensor

NAME = "kandinsky4_distil_512"
DIT = TINY / f"{NAME}.pt"
T5 = TINY / "text_encoder"
CPU = torch.device("cpu")
FLOAT32 = {"device": CPU, "dtype": torch.float32}
ROPE = tuple(f"rope_embeddings.args_{axis}" for axis in range(3))
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 11140000000\n"


@cache
def _dit() -> dict[str, Tensor]:
    return torch.load(DIT, weights_only=True)


def dit_state() -> dict[str, Tensor]:
    """The tiny DiT's tensors; the mapping may be changed, the tensors must not."""
    return dict(_dit())


def retrained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same sizes with other values in one row of one weight."""
    name = "transformer_blocks.1.0.feed_forward.out_layer.weight"
    other = state[name].clone()
    other[77] += 1
    return {**state, name: other}


def tiny_copy(folder: Path) -> Path:
    """The tiny random weights in a folder of their own."""
    return shutil.copytree(TINY, folder)


def shard(folder: Path, count: int = 2, *, stem: str = "model") -> list[Path]:
    """Cut the only weight file in a folder into shards with an index; returns the shards."""
    (whole,) = folder.glob("*.safetensors")
    tensors = load_file(whole)
    whole.unlink()
    names = [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    weight_map = {name: names[number % count] for number, name in enumerate(sorted(tensors))}
    for file in names:
        save_file({name: tensors[name] for name, place in weight_map.items() if place == file}, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return [folder / name for name in names]


def cut(file: Path, kept: int = -1) -> None:
    """Leave only the first bytes of a file, by default all but the last."""
    file.write_bytes(file.read_bytes()[:kept])


def hub_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, bool]]:
    """A hub whose every repository is this folder; returns who asks: (repository, revision, local_files_only) each."""
    asked = []

    def download(repository, *, revision, allow_patterns, local_files_only):
        asked.append((repository, revision, local_files_only))
        assert "model_set.json" in allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked
