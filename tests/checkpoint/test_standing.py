"""What stands is what the loader would accept."""

import shutil

import pytest
from checkpoint_helpers import DIT, NAME, POINTER, cut, shard
from helpers import TINY

from kandinsky.checkpoint.standing import NEEDED, Faults, faults_of


def part(folder, name):
    return shutil.copytree(TINY / name, folder / name)


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_complete_stands(name):
    assert faults_of(name, TINY / name) == Faults()


@pytest.mark.parametrize("name", NEEDED)
def test_a_folder_that_is_missing_or_empty(name, tmp_path):
    found = faults_of(name, tmp_path / name)
    assert (found.missing, found.damaged) == ((f"{tmp_path / name} is not there",), ())
    (tmp_path / name).mkdir()
    assert faults_of(name, tmp_path / name).missing


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vae", "config.json"),
        ("text_encoder", "config.json"),
        ("tokenizer", "spiece.model"),
        ("scheduler", "scheduler_config.json"),
    ],
)
def test_each_small_file_is_needed(tmp_path, name, file):
    path = part(tmp_path, name) / file
    for content in (POINTER, "", *(["{"] if file.endswith("json") else [])):
        path.write_text(content)
        (line,) = faults_of(name, path.parent).damaged
        assert str(path) in line
    path.unlink()
    assert faults_of(name, path.parent).missing == (f"{path} is not there",)


def test_every_shard_is_needed(tmp_path):
    folder = part(tmp_path, "text_encoder")
    first, second = shard(folder)
    assert faults_of("text_encoder", folder) == Faults()
    content = second.read_bytes()
    cut(second)
    (line,) = faults_of("text_encoder", folder).damaged
    assert line == f"{second} is truncated: it has {len(content) - 1} of {len(content)} bytes"
    cut(first, 100)
    second.write_bytes(content + b"1")
    (line,) = faults_of("text_encoder", folder).damaged
    assert str(first) in line
    assert f"it has {len(content) + 1} of {len(content)} bytes" in line
    second.unlink()
    (line,) = faults_of("text_encoder", folder).missing
    assert second.name in line
    (folder / "model.safetensors.index.json").unlink()
    (line,) = faults_of("text_encoder", folder).missing
    assert "model.safetensors.index.json" in line


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_whole_weight_file_is_needed(tmp_path, kept):
    folder = part(tmp_path, "vae")
    cut(folder / "diffusion_pytorch_model.safetensors", kept)
    (line,) = faults_of("vae", folder).damaged
    assert "diffusion_pytorch_model.safetensors is" in line


def test_hidden_files_and_other_formats_do_not_stand(tmp_path):
    folder = part(tmp_path, "vae")
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "._diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.bin").touch()
    (line,) = faults_of("vae", folder).missing
    assert "only diffusion_pytorch_model.bin" in line


@pytest.mark.parametrize("kept", [0, 4, 1000, -30, -1])
def test_a_half_downloaded_dit(tmp_path, kept):
    path = tmp_path / f"{NAME}.pt"
    shutil.copy(DIT, path)
    assert faults_of("dit", path) == Faults()
    cut(path, kept)
    (line,) = faults_of("dit", path).damaged
    assert "is truncated" in line


def test_a_dit_of_the_users_own_is_its_loaders_affair(tmp_path):
    path = tmp_path / f"{NAME}.pt"
    path.write_bytes(b"another format")
    assert faults_of("dit", path) == Faults()
    path.write_text(POINTER)
    assert "pointer of git-LFS" in faults_of("dit", path).damaged[0]
    path.unlink()
    assert faults_of("dit", path).missing == (f"{path} is not there",)
