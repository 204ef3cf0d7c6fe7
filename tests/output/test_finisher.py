"""Latents to results with the VAE alone, and another try where memory runs out."""

import dataclasses

import numpy as np
import pytest
import torch

from kandinsky.errors import DecodeError
from kandinsky.output.finisher import Finisher
from kandinsky.output.options import Output, OutputOptions, output_of
from kandinsky.output.record import Record
from kandinsky.output.unfinished import SUFFIX
from kandinsky.progress import Clock

RECORD = Record(prompt="a cat", seed=3, width=64, height=64, time_length=1, fps=8, crf=5, codec="h264", origin=None)
LATENTS = torch.randn(3, 8, 8, 16, generator=torch.Generator().manual_seed(0))
NUMPY = Output(kind="np", fps=None, crf=None, codec=None, metadata=True)


@pytest.fixture
def finisher(pipe):
    return Finisher(pipe.vae, pipe.model_set, progress=False)


def clock():
    return Clock(frozenset([torch.device("cpu")]))


class Vae:
    """A VAE that runs out of memory after its first chunk, so many times."""

    def __init__(self, vae, times):
        self.vae, self.times, self.attempts = vae, times, []

    def __getattr__(self, name):
        return getattr(self.vae, name)

    def frames(self, latents, *, memory_saving):
        self.attempts.append(memory_saving)
        chunks = self.vae.frames(latents, memory_saving=memory_saving)
        yield next(chunks)
        if len(self.attempts) <= self.times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        yield from chunks


def test_frames_are_in_the_form_that_was_asked_for(finisher):
    made = finisher.begin(LATENTS, None, output=NUMPY, record=RECORD, clock=clock())()
    assert made.frames.shape == (9, 64, 64, 3)
    images = finisher.frames(LATENTS, "pil")
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), made.frames)
    assert np.array_equal(finisher.frames(LATENTS, "pt"), made.frames)


def test_a_file_is_in_its_place_when_it_is_finished(finisher, tmp_path):
    output, path = output_of(tmp_path / "v.mp4", OutputOptions(), is_image=False, model_fps=8)
    finish = finisher.begin(LATENTS, path, output=output, record=RECORD, clock=clock())
    assert not path.exists()
    result = finish()
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]
    assert (result.path, result.num_frames, result.seed) == (path, 9, 3)


def test_memory_that_runs_out_is_tried_for_once_more(finisher):
    expected = finisher.frames(LATENTS, "np")
    once = dataclasses.replace(finisher, vae=Vae(finisher.vae, 1))
    assert np.array_equal(once.frames(LATENTS, "np"), expected)
    assert once.vae.attempts == [None, True]
    together = dataclasses.replace(finisher, vae=Vae(finisher.vae, 1), alone=False)
    with pytest.raises(torch.OutOfMemoryError):
        together.frames(LATENTS, "np")
    assert together.vae.attempts == [None]


def test_another_process_that_fails_finds_the_latents_saved(finisher, tmp_path):
    """What is handed in as `rescue` is called with what saves them."""
    saves = []

    class Rescue:
        def __init__(self, save):
            saves.append(save)

        def __enter__(self):
            saves[0]()
            assert (tmp_path / f"v{SUFFIX}").is_file()

        def __exit__(self, *_error):
            return None

    output, path = output_of(tmp_path / "v.mp4", OutputOptions(), is_image=False, model_fps=8)
    watched = dataclasses.replace(finisher, rescue=Rescue)
    assert watched.begin(LATENTS, path, output=output, record=RECORD, clock=clock())().path == path
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]  # and gone when they are not needed


def test_latents_that_are_not_finite(finisher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DecodeError, match="not finite"):
        finisher.begin(LATENTS * float("inf"), None, output=NUMPY, record=RECORD, clock=clock())
    assert [file.name for file in tmp_path.iterdir()] == [f"kandinsky-3{SUFFIX}"]
