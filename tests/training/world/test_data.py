"""Training data of the synthetic world."""

import pytest
import torch
from helpers import just_saved
from world_helpers import CPU, TEXT_TOKENS, world_weights

from kandinsky.loading.components import load_vae
from kandinsky.training.data import ShardDataset
from kandinsky.training.world.data import encode_clips, encoded_clips, main
from kandinsky.training.world.grammar import caption, split

pytestmark = pytest.mark.filterwarnings("ignore:prompt has")  # the tiny tokenizer cuts words to letters


def made(weights, *, seed=0):
    return list(encoded_clips(weights, CPU, clips=5, seed=seed, batch=2, lengths={1: 3, 9: 1}))


def test_clips_in_a_batch_are_encoded_as_alone(weights):
    vae = load_vae(weights / "vae", device=CPU, dtype=torch.float32)
    clips = torch.randint(0, 256, (2, 17, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together = encode_clips(vae.autoencoder, clips)
    assert together.shape == (2, 5, 4, 4, 16)
    for clip, latents in zip(clips, together, strict=True):
        torch.testing.assert_close(latents, vae.encode(clip), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def one(weights):
    return made(weights)


@pytest.mark.slow
def test_a_seed_gives_the_same_clips(one, weights):
    same, other = made(weights), made(weights, seed=1)
    assert [clip.id for clip in one] == list("01234")
    assert one[0].text.shape == (TEXT_TOKENS, 64)
    assert {clip.latents.shape[0] for clip in one} <= {1, 3}
    for a, b in zip(one, same, strict=True):
        assert a.caption == b.caption
        assert torch.equal(a.latents, b.latents)
        assert torch.equal(a.text, b.text)
    assert [clip.caption for clip in one] != [clip.caption for clip in other]


def test_weights_that_were_just_saved(one, tmp_path):
    (clip,) = encoded_clips(just_saved(world_weights(tmp_path)), CPU, clips=1, seed=0, batch=1, lengths={1: 3, 9: 1})
    assert clip.caption == one[0].caption
    assert torch.equal(clip.text, one[0].text)


def test_captions_are_those_of_training_scenes(one):
    """None of these five has another wording."""
    assert {clip.caption for clip in one} <= {caption(scene) for scene in split()[0]}


def test_a_folder_with_files_is_refused(weights, tmp_path, capsys):
    single = ["--clips", "1", "--seed", "15"]  # whose first clip has one frame
    arguments = ["--weights", str(weights), *single, "--device", "cpu"]
    main([str(tmp_path / "new"), *arguments])
    assert [item.shape[0] for item in ShardDataset(tmp_path / "new").items] == [1]
    assert f"1 clips in {tmp_path / 'new'}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "new"), *arguments])
    assert "has files in it; allowed is a new folder" in capsys.readouterr().err
