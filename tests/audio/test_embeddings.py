"""Embeddings: their shapes, files of them, and a folder that keeps them."""

import pytest
import torch
from audio_helpers import golden_embeddings
from safetensors.torch import save_file

from kandinsky.audio.embeddings import EmbeddingCache, Embeddings, embeddings_of, read_embeddings
from kandinsky.errors import CheckpointError

SMALL = {"text": torch.zeros(2, 100, 4096), "video": torch.zeros(2, 3, 4096)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": torch.zeros(2, 99, 4096)}, r"text is torch.float32 \[2, 99, 4096\]; allowed .* \[2, 100, 4096\]"),
        ({"text": torch.zeros(100, 4096)}, "text is"),
        ({"video": torch.zeros(2, 0, 4096)}, r"video is .* \[2, frames, 4096\]"),
        ({"video": torch.zeros(2, 3, 768)}, "video is"),
        ({"video": torch.zeros(4096)}, "video is"),
        ({"video": torch.zeros(2, 3, 4096, dtype=torch.int64)}, "video is torch.int64"),
        ({"video": torch.full((2, 3, 4096), torch.nan)}, "video has values that are not finite"),
    ],
)
def test_wrong_tensors(change, message):
    with pytest.raises(ValueError, match=message):
        Embeddings(**{**SMALL, **change})


def test_a_file(tmp_path):
    given = golden_embeddings()
    given.save(tmp_path / "e.safetensors")
    read = read_embeddings(tmp_path / "e.safetensors")
    assert torch.equal(read.text, given.text)
    assert torch.equal(read.video, given.video)
    assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]


def test_files_that_are_none(tmp_path):
    path = tmp_path / "e.safetensors"
    with pytest.raises(ValueError, match="there is no such file"):
        read_embeddings(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is not a file of embeddings"):
        read_embeddings(path)
    save_file({"text": SMALL["text"]}, path)
    with pytest.raises(ValueError, match="has no tensor 'video'"):
        read_embeddings(path)


def test_of_both_halves():
    text, video = torch.ones(100, 4096), torch.ones(5, 4096)
    made = embeddings_of((0 * text, 0 * video), (text, video))
    assert made.text.shape == (2, 100, 4096)
    assert (made.text[0].max(), made.video[1].min()) == (0, 1)


def test_a_cache(tmp_path):
    cache, made = EmbeddingCache(tmp_path / "kept", "one"), Embeddings(**SMALL)
    assert cache.get("digest", "rain", "wind") is None
    cache.put(made, "digest", "rain", "wind")
    found = cache.get("digest", "rain", "wind")
    assert found is not None
    assert torch.equal(found.video, made.video)
    others = [("digest", "rain", ""), ("digest", "", "wind"), ("other", "rain", "wind")]
    assert [cache.get(*key) for key in others] == [None] * 3
    assert EmbeddingCache(tmp_path / "kept", "two").get("digest", "rain", "wind") is None


def test_a_file_of_the_cache_that_cannot_be_read(tmp_path):
    cache = EmbeddingCache(tmp_path, "one")
    cache.file("d", "a", "b").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="is made again"):
        assert cache.get("d", "a", "b") is None


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(UserWarning, match="embeddings are not kept"):
        EmbeddingCache(tmp_path / "file", "one").put(Embeddings(**SMALL), "d", "a", "b")
