"""What is in the world's model set beside networks."""

import pytest
from helpers import ROOT, SMALL, just_saved, own_weights

from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import SAVED
from kandinsky.loading.settings import read_schedule
from kandinsky.training.world.model_set import WORLD, main, write


def test_it_is_read_as_it_was_written(tmp_path):
    write(tmp_path)
    assert read_model_set(tmp_path) == WORLD
    assert read_schedule(tmp_path / "scheduler").timesteps == (999, 749, 499, 249)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "FOLDER" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    main(["~/w"])
    assert read_model_set(tmp_path / "w") == WORLD


def test_what_was_just_saved_is_kept_and_replaced(tmp_path):
    """Other parts are put in their places; the old schedule and declaration do not go before the new ones."""
    folder = just_saved(own_weights(tmp_path / "w", SMALL))
    write(folder)
    assert read_model_set(folder) == WORLD
    assert not (folder / SAVED).exists()
    assert (folder / "vae" / "config.json").is_file()


def test_the_weights_in_the_repository_are_declared_so():
    assert read_model_set(ROOT / "weights" / "tiny") == WORLD
