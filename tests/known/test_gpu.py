"""Known pixels on a GPU: what is kept is bit for bit the VAE's own, in every memory mode."""

import numpy as np
import pytest
import torch

from kandinsky.factory import get_T2V_pipeline

pytestmark = pytest.mark.gpu
ASKED = {"time_length": 2, "seed": 3, "output_type": "latent"}
CLIP = np.random.default_rng(1).integers(0, 256, (17, 64, 64, 3), np.uint8)
MASK = np.arange(64)[None] + np.zeros((64, 1)) < 24


def loaded(weights, memory):
    # one attention for all: "auto" measures, and may choose another one for each pipeline
    return get_T2V_pipeline(
        "cuda", cache_dir=weights, memory=memory, attention="torch", local_files_only=True, progress=False
    )


@pytest.fixture(scope="module")
def pipe(small_weights):
    return loaded(small_weights, "resident")


def encoded(pipe, pixels):
    return pipe.vae.encode(torch.from_numpy(np.ascontiguousarray(pixels))).double()


CALLS = {
    "image": {"image": CLIP[0]},
    "both": {"image": CLIP[0], "last_image": CLIP[-1]},
    "video": {"video": CLIP, "strength": 0.5},
    "mask": {"video": CLIP, "mask": MASK},
}


@pytest.mark.parametrize("memory", ["staged", "blocks"])
@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_the_same_in_every_memory_mode(pipe, small_weights, memory, given):
    other = loaded(small_weights, memory)
    assert torch.equal(encoded(pipe, CLIP), encoded(other, CLIP))
    assert torch.equal(pipe("a cat", **given, **ASKED), other("a cat", **given, **ASKED))
    assert {each.device.type for each in other.vae.autoencoder.parameters()} == {"cpu"}


def test_what_is_known_is_the_vaes_own(pipe):
    latents = pipe("a cat", image=CLIP[0], last_image=CLIP[-1], **ASKED)
    assert torch.equal(latents[:1], encoded(pipe, CLIP[:1]))
    assert torch.equal(latents[-1:], encoded(pipe, np.repeat(CLIP[-1:], 9, axis=0))[-1:])
    masked = pipe("a cat", video=CLIP, mask=MASK, **ASKED)
    assert torch.equal(masked[:, :, 4:], encoded(pipe, CLIP)[:, :, 4:])


def test_the_first_frame_is_the_pictures_own_way_there_and_back(pipe):
    frames = pipe("a cat", image=CLIP[0], **{**ASKED, "output_type": "np"})
    head = pipe("a cat", image=CLIP[0], **ASKED)
    assert np.array_equal(frames, pipe.decode(head))
