"""Arguments to settings, settings to parts: what is refused, and that loaded weights are those of the file."""

import json
import shutil

import pytest
import torch
from audio_helpers import save_encoder, save_small, small_unet, small_vae
from safetensors.torch import load_file, save_file

from kandinsky.audio.load import (
    LazyEncoder,
    encoder_bytes,
    load_sound_parts,
    sound_devices_of,
    sound_needs_in,
    sound_settings_of,
)
from kandinsky.audio.weights import FOLDER
from kandinsky.errors import CheckpointError
from kandinsky.memory.sound import ENCODER_BYTES, WORKING_BYTES

CPU = torch.device("cpu")
SETTINGS = {
    "trust_remote_code": False,
    "encoder_revision": None,
    "embedding_cache": None,
    "dtype": None,
    "local_files_only": True,
    "revision": None,
    "progress": False,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def copied(weights, tmp_path):
    """A copy whose files may be changed: all but the UNet's weights, which are linked."""
    shutil.copytree(weights, tmp_path / "w", copy_function=shutil.copyfile)
    return tmp_path / "w"


def settings(folder, **changes):
    return sound_settings_of("cpu", folder, {}, **{**SETTINGS, **changes})


def test_parts_are_those_of_the_files(weights):
    parts = load_sound_parts(settings(weights))
    for module, golden in ((parts.unet, small_unet()), (parts.vae, small_vae())):
        state = golden.state_dict()
        assert module.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert parts.scheduler["_class_name"] == "PNDMScheduler"
    assert parts.origin is not None
    assert parts.origin.devices == {"unet": "cpu", "vae": "cpu", "encoder": "cpu"}
    assert (parts.origin.dtype, set(parts.origin.weights)) == ("float32", {"unet", "vae"})
    assert parts.cache is None


def test_dtype(weights):
    """Of the UNet and the encoder; the VAE's pixels need float32."""
    found = settings(weights, dtype=torch.bfloat16)
    parts = load_sound_parts(found)
    assert (parts.unet.dtype, parts.vae.dtype, found.encoder.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)


def test_an_old_file_of_the_vae(copied):
    """diffusers called the attention's Linears otherwise before."""
    file = copied / FOLDER / "vae" / "diffusion_pytorch_model.safetensors"
    olds = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(name):
        for new, before in olds.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    state = {old(name): value for name, value in load_file(file).items()}
    assert any(".proj_attn." in name for name in state)
    save_file(state, file)
    parts = load_sound_parts(settings(copied))
    assert all(torch.equal(value, small_vae().state_dict()[name]) for name, value in parts.vae.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": torch.float16}, "dtype=torch.float16"),
        ({"trust_remote_code": "yes"}, "trust_remote_code='yes': allowed are True and False"),
        ({"encoder_revision": "main"}, "encoder_revision='main'"),
        ({"embedding_cache": 3}, "embedding_cache=3"),
    ],
)
def test_wrong_arguments(tmp_path, change, message):
    """Before weights are looked for."""
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **change)


@pytest.mark.parametrize(
    "device_map", ["tpu", {"unet": "cpu"}, {"dit": "cpu", "vae": "cpu", "encoder": "cpu"}, ["cpu"], {}]
)
def test_wrong_devices(device_map):
    with pytest.raises(ValueError, match="device_map="):
        sound_devices_of(device_map)


def test_a_device_for_each():
    assert sound_devices_of({"unet": "cpu", "vae": "cpu", "encoder": CPU}) == dict.fromkeys(
        ("unet", "vae", "encoder"), CPU
    )


def test_missing_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="Put there:"):
        settings(tmp_path)


@pytest.mark.parametrize(
    ("part", "file"), [("unet", "config.json"), ("vae", "config.json"), ("scheduler", "scheduler_config.json")]
)
def test_files_of_another_model(copied, part, file):
    (copied / FOLDER / part / file).write_text(json.dumps({"_class_name": "Other"}))
    with pytest.raises(CheckpointError, match=r"Other|PNDMScheduler"):
        load_sound_parts(settings(copied))


def test_weights_that_do_not_fit(copied):
    file = copied / FOLDER / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    name = next(name for name in state if name.endswith("attn1.processor.video_q.weight"))
    del state[name]
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"1 missing, first '.*video_q\.weight'"):
        load_sound_parts(settings(copied))


def test_the_encoder_is_loaded_when_it_is_asked(tmp_path):
    encoder = lazy(save_encoder(tmp_path / "encoder"))
    encoder.check()
    text, video = encoder(torch.zeros(3, 2, 4, 4, dtype=torch.uint8), "rain")
    assert (text.shape, video.shape) == ((100, 4096), (2, 4096))
    assert encoder.encoder is encoder.encoder


def lazy(folder, **changes):
    given = {"revision": None, "trusted": True, "local_files_only": True, "device": CPU, "dtype": torch.float32}
    return LazyEncoder(folder=folder, **{**given, **changes})


def test_an_encoder_that_may_not_be_asked(tmp_path):
    with pytest.raises(ValueError, match="trust_remote_code=False"):
        lazy(tmp_path, trusted=False).check()
    with pytest.raises(ValueError, match="at one commit only"):
        lazy(tmp_path, local_files_only=False).check()
    lazy(tmp_path, local_files_only=False, revision="0" * 40).check()
    with pytest.raises(FileNotFoundError, match="the encoder is missing"):
        lazy(tmp_path)(torch.zeros(1), "rain")
    with pytest.raises(ValueError, match="trust_remote_code=False"):
        lazy(tmp_path, trusted=False)(torch.zeros(1), "rain")


def test_encoders_are_told_apart(tmp_path):
    marks = {lazy(tmp_path / name, revision=revision).mark for name in "ab" for revision in (None, "0" * 40)}
    assert len(marks) == 4


def test_needs(weights, tmp_path):
    needed, encoder = sound_needs_in(weights)
    assert needed > WORKING_BYTES + sum(p.numel() for p in small_unet().parameters()) * 2
    assert encoder == ENCODER_BYTES
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert encoder_bytes(tmp_path) == 5
