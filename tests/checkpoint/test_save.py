"""diffusers' names: what is saved loads again and makes the same frames; what cannot be done is said."""

import numpy as np
import pytest
import torch
from helpers import SMALL, TINY

from kandinsky import Kandinsky4T2VPipeline
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.parallel.ranks import Ranks

CALL = {"time_length": 1, "width": 64, "height": 64, "seed": 3, "return_frames": True}


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "new"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(saved):
    loaded = Kandinsky4T2VPipeline.from_pretrained(saved, device_map="cpu", progress=False)
    loaded.model_set = SMALL
    return loaded


def frames(pipe):
    return np.stack([np.asarray(frame) for frame in pipe("a cat", **CALL)])


def test_saved_equals_loaded(pipe, saved, loaded):
    names = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    published = {str(path.relative_to(TINY)) for path in TINY.rglob("*") if path.is_file()}
    assert {name.replace(".pt", ".safetensors") for name in published} <= names
    assert np.array_equal(frames(loaded), frames(pipe))


def test_saved_weights_are_the_published_keys(saved):
    for name, own in (("kandinsky4_distil_512.pt", "kandinsky4_distil_512.safetensors"), ("vae", "vae")):
        theirs, ours = open_checkpoint(TINY / name), open_checkpoint(saved / own)
        assert theirs.shapes == ours.shapes
        cpu = torch.device("cpu")
        assert all(torch.equal(theirs.tensor(key, cpu).float(), ours.tensor(key, cpu).float()) for key in ours.shapes)


def test_to_the_same_device(loaded):
    before = frames(loaded)
    assert loaded.to("cpu") is loaded
    assert np.array_equal(frames(loaded), before)
    assert (loaded.origin.dtype, loaded.origin.devices["dit"], loaded.vae_source.device) == ("float32", "cpu", "cpu")


@pytest.mark.gpu
def test_to_a_gpu_and_back(loaded):
    before = frames(loaded)
    loaded.to("cuda")
    assert {part.device.type for part in (loaded.dit, loaded.text_encoder, loaded.vae)} == {"cuda"}
    assert np.abs(frames(loaded).astype(int) - before).mean() < 2
    assert (set(loaded.origin.devices.values()), loaded.origin.kernels) == ({"cuda"}, "triton")
    assert loaded.vae_source.device.startswith("cuda")
    assert np.array_equal(frames(loaded.to("cpu")), before)


def test_what_cannot_be_moved_or_saved(pipe, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="device_map='cuda:99' does not exist"):
        pipe.to("cuda:99")
    monkeypatch.setattr(pipe, "team", Ranks(0, 2))
    with pytest.raises(ValueError, match="save_pretrained: the weights are quantised or shared out"):
        pipe.save_pretrained(tmp_path / "no")
    assert not list(tmp_path.iterdir())


def test_neither_folder_nor_repository(tmp_path):
    with pytest.raises(ValueError, match="allowed is a folder that exists, or owner/name on the hub"):
        Kandinsky4T2VPipeline.from_pretrained(tmp_path / "none", device_map="cpu")
    with pytest.raises(FileNotFoundError, match="'none/here' is not a folder here, nor found on the hub"):
        Kandinsky4T2VPipeline.from_pretrained("none/here", device_map="cpu", local_files_only=True)


def test_repository(saved, monkeypatch):
    asked = {}

    def download(repository, **settings):
        asked.update(settings, repository=repository)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("kandinsky.checkpoint.locate._check_reachable", lambda _: None)
    Kandinsky4T2VPipeline.from_pretrained("some/one", device_map="cpu", revision={"some/one": "v2"}, progress=False)
    assert (asked["repository"], asked["revision"]) == ("some/one", "v2")
    assert "vae/*" in asked["allow_patterns"]
