"""What is in the world's model set beside networks."""

from helpers import ROOT

from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.loading.settings import read_schedule
from kandinsky.training.world.model_set import WORLD, write


def test_it_is_read_as_it_was_written(tmp_path):
    write(tmp_path)
    assert read_model_set(tmp_path) == WORLD
    assert read_schedule(tmp_path / "scheduler").timesteps == (999, 749, 499, 249)


def test_the_weights_in_the_repository_are_declared_so():
    assert read_model_set(ROOT / "weights" / "tiny") == WORLD
