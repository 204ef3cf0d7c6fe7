"""Weights are told apart by what is in them."""

import os
import shutil

import pytest
import torch
from checkpoint_helpers import DIT, T5, cut, dit_state, retrained, shard
from helpers import TINY
from safetensors.torch import save_file

from kandinsky.checkpoint.fingerprint import PIECE_BYTES, PIECES, file_mark, fingerprint, text_mark
from kandinsky.checkpoint.load import open_checkpoint

ROWS, COLUMNS = 4096, 256
LARGE = {"w": torch.randn(ROWS, COLUMNS), "b": torch.zeros(300)}
"""Larger than what counts whole, if that is little."""
WHOLE = 4096


def saved(state, path):
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)
    return path


def mark(state, path, **settings):
    return fingerprint(open_checkpoint(saved(state, path)), **settings)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_whatever_is_changed_in_a_small_model_is_seen(tmp_path, ending):
    path = tmp_path / f"w.{ending}"
    state = {"a": torch.arange(24.0).view(6, 4), "b": torch.ones(3)}
    seen = {mark(state, path)}
    for row in range(6):
        other = state["a"].clone()
        other[row, 1] += 1
        seen.add(mark({**state, "a": other}, path))
    seen.add(mark({**state, "a": state["a"].bfloat16()}, path))
    seen.add(mark({**state, "a": state["a"].view(4, 6)}, path))
    seen.add(mark({"c": state["a"], "b": state["b"]}, path))
    assert len(seen) == 10


def test_the_kind_of_file_makes_no_difference(tmp_path):
    state = dit_state()
    expected = fingerprint(open_checkpoint(DIT))
    assert len(expected) == 16
    assert mark(state, tmp_path / "w.safetensors") == expected
    assert mark({"model": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pt") == expected
    shutil.copytree(T5, tmp_path / "t5")
    shard(tmp_path / "t5")
    assert fingerprint(open_checkpoint(tmp_path / "t5")) == fingerprint(open_checkpoint(T5))


@pytest.mark.parametrize("row", [0, ROWS // 2, ROWS - 1, range(1000, 1040)])
def test_rows_of_a_large_tensor(tmp_path, row):
    other = LARGE["w"].clone()
    other[row] += 1
    assert mark(LARGE, tmp_path / "a.pt", whole=WHOLE) != mark({**LARGE, "w": other}, tmp_path / "b.pt", whole=WHOLE)


def test_a_merged_lora_is_seen(tmp_path):
    """Rank 1, bfloat16, and so small that most elements are rounded back to what they were."""
    base = LARGE["w"].bfloat16()
    merged = base + (1e-4 * torch.outer(torch.randn(ROWS), torch.randn(COLUMNS))).bfloat16()
    assert (merged != base).float().mean() < 0.1
    assert mark({"w": base}, tmp_path / "a.pt", whole=WHOLE) != mark({"w": merged}, tmp_path / "b.pt", whole=WHOLE)


def test_a_small_tensor_of_a_large_model_counts_whole(tmp_path):
    other = LARGE["b"].clone()
    other[123] = 1
    assert mark(LARGE, tmp_path / "a.pt", whole=WHOLE) != mark({**LARGE, "b": other}, tmp_path / "b.pt", whole=WHOLE)
    assert WHOLE < PIECES * PIECE_BYTES < LARGE["w"].nbytes


@pytest.mark.parametrize("shape", [(), (0, 4), (1,)])
def test_tensors_of_every_shape(tmp_path, shape):
    assert mark({"a": torch.zeros(shape)}, tmp_path / "w.pt") == mark({"a": torch.zeros(shape)}, tmp_path / "x.pt")


@pytest.mark.parametrize("whole", [WHOLE, 2**26])
def test_a_file_of_the_same_size_with_one_other_element(tmp_path, whole):
    """The checksums tell it though no sample does."""
    path, other = saved(LARGE, tmp_path / "a.pt"), LARGE["w"].clone()
    before, size = file_mark(path, whole=whole), path.stat().st_size
    os.utime(path, (1, 1))
    assert file_mark(path, whole=whole) == before
    assert file_mark(path.rename(tmp_path / "b.pt"), whole=whole) == before
    other[1001, 7] += 1
    saved({**LARGE, "w": other}, path)
    assert path.stat().st_size == size
    assert file_mark(path, whole=whole) != before


def test_a_file_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        files = [saved({**LARGE, "w": LARGE["w"] + n}, tmp_path / f"{n}.pt") for n in range(2)]
    finally:
        torch.serialization.set_crc32_options(True)
    assert file_mark(files[0], whole=WHOLE) != file_mark(files[1], whole=WHOLE)


def test_damaged_files_have_marks_of_their_own(tmp_path):
    path = saved(LARGE, tmp_path / "a.pt")
    seen = {file_mark(path)}
    cut(path, -1)
    seen.add(file_mark(path))
    cut(path, 0)
    seen.add(file_mark(path))
    assert len(seen) == 3


def test_text_marks(tmp_path):
    shutil.copytree(TINY / "tokenizer", tmp_path / "tokenizer")
    shutil.copytree(T5, tmp_path / "t5")

    def now(weights="w", *settings):
        return text_mark(weights, tmp_path / "t5", tmp_path / "tokenizer", *settings)

    seen = [now()]
    (tmp_path / "tokenizer" / "._spiece.model").write_bytes(b"macOS")
    (tmp_path / "tokenizer" / ".spiece-01234567.partial.model").write_bytes(b"killed")
    assert now() == seen[0]
    seen += [now("v"), now("w", 224), now("w", 225)]
    with (tmp_path / "tokenizer" / "spiece.model").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0")
    seen.append(now())
    (tmp_path / "t5" / "config.json").write_text("{}")
    seen.append(now())
    assert len({*seen}) == 6


def test_a_record_sees_one_row(tmp_path):
    state = dit_state()
    assert mark(retrained(state), tmp_path / "w.pt") != mark(state, tmp_path / "v.pt")
