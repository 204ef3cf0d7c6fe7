"""What was saved goes before what stands beside it."""

from kandinsky.checkpoint.pending import SAVED, lasting, place_of


def test_places(tmp_path):
    (tmp_path / "vae").mkdir()
    assert place_of(tmp_path, "vae") == tmp_path / "vae"
    (tmp_path / SAVED / "vae").mkdir(parents=True)
    assert place_of(tmp_path, "vae") == tmp_path / SAVED / "vae"
    assert place_of(tmp_path, "tokenizer") == tmp_path / "tokenizer"


def test_what_is_written_down_lasts(tmp_path):
    for part in (tmp_path / "vae", tmp_path / SAVED / "vae"):
        assert lasting(part) == tmp_path / "vae"
    assert lasting(tmp_path / "vae" / "config.json") == tmp_path / "vae" / "config.json"
