"""`get_V2A_pipeline`: from a folder to a sound, as a user does it."""

import inspect

import pytest
import torch
from audio_helpers import golden_embeddings, save_encoder, save_small

from kandinsky.audio.factory import get_V2A_pipeline
from kandinsky.audio.load import sound_settings_of
from kandinsky.factory import get_T2V_pipeline

pytestmark = pytest.mark.usefixtures("quick_waveform")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The small model, and a small encoder with its own code."""
    folder = save_small(tmp_path_factory.mktemp("weights"))
    save_encoder(folder / "cogvlm2-video-llama3-chat")
    return folder


@pytest.mark.slow
def test_a_sound_from_nothing_but_a_folder(weights, silent, tmp_path):
    pipe = get_V2A_pipeline("cpu", weights, trust_remote_code=True, embedding_cache=tmp_path, progress=False)
    first = pipe(silent, "rain", seed=1, num_inference_steps=2)
    assert len(list(tmp_path.iterdir())) == 1
    again = get_V2A_pipeline("cpu", weights, embedding_cache=tmp_path, progress=False)  # nobody vouches
    assert torch.equal(again(silent, "rain", seed=1, num_inference_steps=2).waveform, first.waveform)
    with pytest.raises(ValueError, match="trust_remote_code=False"):
        again(silent, "wind", seed=1, num_inference_steps=2)


@pytest.mark.slow
def test_embeddings_need_no_encoder(weights, silent, sound_pipe):
    pipe = get_V2A_pipeline("cpu", weights, progress=False)
    call = {"embeddings": golden_embeddings(), "seed": 1, "num_inference_steps": 2}
    assert torch.equal(pipe(silent, **call).waveform, sound_pipe(silent, **call).waveform)


def test_missing_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"kandinsky-4-v2a/unet/  \(config\.json, \*\.safetensors\)"):
        get_V2A_pipeline("cpu", tmp_path, local_files_only=True)


def test_the_signature_is_in_the_manner_of_text_to_video():
    theirs, ours = (inspect.signature(factory).parameters for factory in (get_T2V_pipeline, get_V2A_pipeline))
    shared = set(theirs) & set(ours)
    assert {"device_map", "cache_dir", "vae_path", "scheduler_path", "dtype", "local_files_only", "revision"} <= shared
    for name in shared - {"revision"}:
        assert (theirs[name].kind, theirs[name].default) == (ours[name].kind, ours[name].default)
    assert set(inspect.signature(sound_settings_of).parameters) - {"given"} <= set(ours)
