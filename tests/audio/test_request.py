"""Arguments of a call: each is checked, before a model runs."""

import pytest
from audio_helpers import golden_embeddings

from kandinsky.audio.embeddings import EmbeddingCache
from kandinsky.audio.request import NEGATIVE_PROMPT, PROMPT, sound_request_of
from kandinsky.errors import UnreadableVideoError


def test_defaults_are_the_published_ones(silent):
    request = sound_request_of(silent)
    assert (request.prompt, request.negative_prompt) == (PROMPT, NEGATIVE_PROMPT)
    assert (request.prompt, request.steps, request.guidance_scale) == ("clean. clear. good quality.", 50, 8.0)
    assert (request.embeddings, request.path, request.metadata) == (None, None, True)
    assert request.clip.frames == 9
    assert sound_request_of(silent).seed != request.seed  # drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt=None: allowed is a string"),
        ({"negative_prompt": 3}, "negative_prompt=3"),
        ({"seed": -1}, "seed=-1: allowed is 0 to 9223372036854775807"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"num_inference_steps": 0}, "num_inference_steps=0: allowed is 1 to 1000"),
        ({"num_inference_steps": 1001}, "num_inference_steps=1001"),
        ({"guidance_scale": 0.5}, r"guidance_scale=0.5: allowed is 1 \(none\) to 100"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"guidance_scale": "8"}, "guidance_scale='8'"),
        ({"guidance_scale": True}, "guidance_scale=True"),
        ({"embeddings": "none.safetensors"}, "embeddings='none.safetensors': there is no such file"),
        ({"embeddings": 3}, "embeddings=3: allowed is a path"),
        ({"save_path": "v.webm"}, "save_path='v.webm'"),
        ({"save_path": 3}, "save_path=3"),
        ({"replace_audio": "yes"}, "replace_audio='yes'"),
        ({"metadata": None}, "metadata=None"),
        ({"video": 3}, "video=3"),
        ({"video": "none.mp4"}, "video='none.mp4': there is no such file"),
    ],
)
def test_wrong_arguments(silent, change, message):
    with pytest.raises(ValueError, match=message):
        sound_request_of(**{"video": silent, **change})


def test_no_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(UnreadableVideoError):
        sound_request_of(tmp_path / "v.mp4")


def test_a_sound_track(loud, tmp_path):
    sound_request_of(loud)  # nothing is written
    with pytest.raises(ValueError, match="replace_audio=True"):
        sound_request_of(loud, save_path=tmp_path / "v.mp4")
    assert sound_request_of(loud, save_path=tmp_path / "v.mp4", replace_audio=True).path == tmp_path / "v.mp4"


def test_embeddings_of_a_file(silent, tmp_path):
    golden_embeddings().save(tmp_path / "e.safetensors")
    request = sound_request_of(silent, embeddings=tmp_path / "e.safetensors")
    assert request.prompt is None  # it would say nothing
    assert request.known_embeddings(None) is request.embeddings


def test_known_embeddings(silent, tmp_path):
    cache, request = EmbeddingCache(tmp_path, "one"), sound_request_of(silent, "rain", negative_prompt="wind")
    assert request.known_embeddings(None) is None
    assert request.known_embeddings(cache) is None
    cache.put(golden_embeddings(), request.clip.mark, "rain", "wind")
    assert request.known_embeddings(cache) is not None
