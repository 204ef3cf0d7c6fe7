"""What was saved goes before what stands beside it."""

from kandinsky.checkpoint.pending import SAVED, place_of


def test_places(tmp_path):
    (tmp_path / "vae").mkdir()
    assert place_of(tmp_path, "vae") == tmp_path / "vae"
    (tmp_path / SAVED / "vae").mkdir(parents=True)
    assert place_of(tmp_path, "vae") == tmp_path / SAVED / "vae"
    assert place_of(tmp_path, "tokenizer") == tmp_path / "tokenizer"
