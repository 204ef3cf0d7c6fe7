"""A checked request to results, and the stages that a run is made of."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch
from fakes import QuickVae, TextOnly, WatchedDit, changed
from helpers import SMALL, relative_error
from PIL import Image

from kandinsky.errors import StoppedError
from kandinsky.output.options import OutputOptions
from kandinsky.output.result import FramesResult, GenerationResult, LatentsResult
from kandinsky.request import request_of
from kandinsky.runner import Runner
from kandinsky.video_shape import VideoShape

SHAPE = VideoShape.from_request(1, 64, 64, model_set=SMALL)
LATENT = {"time_length": 0, "width": 64, "height": 64, "seed": 3, "output_type": "latent"}


@pytest.fixture(scope="module")
def quick(pipe):
    """The pipeline with a VAE that is no network: what is tested is what happens before it."""
    return changed(pipe, vae=QuickVae())


def asked(pipe, save_path=None, *, kind=None, **settings):
    size = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    options = OutputOptions(type=kind)
    return request_of("a cat", save_path, **{**size, **settings}, model_set=pipe.model_set, options=options)


def test_each_kind_has_its_result(quick, tmp_path):
    (file,) = quick.run(asked(quick, tmp_path / "v.mp4"))
    (pil,) = quick.run(asked(quick, kind="pil"))
    (array,) = quick.run(asked(quick, kind="np"))
    (tensor,) = quick.run(asked(quick, kind="pt"))
    (latents,) = quick.run(asked(quick, kind="latent"))
    assert isinstance(file, GenerationResult)
    assert (file.path, file.num_frames, file.fps) == (tmp_path / "v.mp4", 9, 8)
    for found, kind in ((pil, list), (array, np.ndarray), (tensor, torch.Tensor)):
        assert isinstance(found, FramesResult)
        assert isinstance(found.frames, kind)
        assert len(found.frames) == 9
    assert isinstance(pil.frames[0], Image.Image)
    assert np.array_equal(array.frames, tensor.frames)
    assert isinstance(latents, LatentsResult)
    assert latents.latents.shape == (3, 8, 8, 16)
    for result in (file, pil, array, tensor, latents):
        assert result.seed == 3
        assert result.timings["total"] >= result.timings["sample"] > 0


def test_a_result_for_each_job(quick, tmp_path):
    request = asked(quick, tmp_path / "v.png", time_length=0, bs=3)
    results = quick.run(request)
    assert [(result.path.name, result.seed) for result in results] == [("v-0.png", 3), ("v-1.png", 4), ("v-2.png", 5)]


def test_a_run_is_its_stages(pipe):
    """Encode, sample, decode one after the other give what a call gives."""
    latents = pipe.sample(pipe.encode("a cat"), SHAPE, seed=3)
    (whole,) = pipe.run(asked(pipe, kind="np"))
    assert latents.dtype == torch.float64
    assert np.array_equal(pipe.decode(latents), whole.frames)
    assert np.array_equal([np.asarray(image) for image in pipe.decode(latents, "pil")], whole.frames)


def test_a_seed_decides_the_latents(quick):
    text = quick.encode("a cat")
    first, again, other = (quick.sample(text, SHAPE, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert relative_error(other, first) > 0.1


def test_a_prompt_decides_the_latents(quick):
    cat, dog = (quick.sample(quick.encode(prompt), SHAPE, seed=3) for prompt in ("a cat", "a dog"))
    assert relative_error(dog, cat) > 1e-4


def test_a_job_is_finished_later(quick, tmp_path):
    request = asked(quick, tmp_path / "v.mp4")
    (job,) = request.jobs
    finish = quick.begin(job, request.shape, request.output)
    assert not (tmp_path / "v.mp4").exists()
    results = []
    thread = threading.Thread(target=lambda: results.append(finish()))  # any thread
    thread.start()
    thread.join()
    assert results[0].path.is_file()


def test_an_embedding_that_is_there_is_taken(quick):
    embedding = quick.encode("a dog")
    silent = changed(quick, text_encoder=TextOnly(embedding, lambda _: pytest.fail("encoded again")))
    request = asked(quick, kind="latent")
    result = silent.begin(request.jobs[0], request.shape, request.output, text_embed=embedding)()
    assert torch.equal(result.latents, quick.sample(embedding, SHAPE, seed=3))


def test_on_step(quick):
    seen = []
    request = asked(quick, kind="latent")
    (expected,) = quick.run(request)
    (watched,) = quick.run(request, on_step=lambda step, total, latents: seen.append((step, total, latents.shape)))
    assert seen == [(step, 4, (3, 8, 8, 16)) for step in (1, 2, 3, 4)]
    assert torch.equal(watched.latents, expected.latents)


def test_on_step_stops_the_run(quick, tmp_path):
    steps = []
    watched = changed(quick, dit=WatchedDit(quick.dit, steps.append))
    with pytest.raises(StoppedError, match="a callback or an interrupt stopped the run after step 2 of 4"):
        watched.run(asked(quick, tmp_path / "v.mp4", bs=2), on_step=lambda step, _total, _latents: step < 2)
    assert steps == [0, 1]  # nor is the second job begun
    assert list(tmp_path.iterdir()) == []


def test_callback_is_that_of_diffusers(quick):
    """It gets the pipeline, the index, the timestep and the latents; those that it returns are gone on with."""
    expected, seen = quick("a cat", **LATENT), []

    def watch(pipeline, step, timestep, callback_kwargs):
        seen.append((pipeline is quick, step, timestep, list(callback_kwargs)))
        return callback_kwargs

    assert torch.equal(quick("a cat", **LATENT, callback_on_step_end=watch), expected)
    assert seen == [(True, step, timestep, ["latents"]) for step, timestep in enumerate((999, 749, 499, 249))]


def test_latents_of_a_callback_are_gone_on_with(quick):
    expected = quick("a cat", **LATENT)

    def last_is_zero(_pipe, step, _timestep, callback_kwargs):
        return {"latents": torch.zeros_like(callback_kwargs["latents"])} if step == 3 else callback_kwargs

    def first_is_other(_pipe, step, _timestep, callback_kwargs):
        return {"latents": callback_kwargs["latents"] + (step == 0)}

    assert not quick("a cat", **LATENT, callback_on_step_end=last_is_zero).any()
    assert relative_error(quick("a cat", **LATENT, callback_on_step_end=first_is_other), expected) > 1e-3
    assert torch.equal(quick("a cat", **LATENT, callback_on_step_end=lambda *_: None), expected)
    assert torch.equal(quick("a cat", **LATENT, callback_on_step_end=lambda *_: {}), expected)


def test_both_callbacks(quick):
    """`on_step` sees the latents that the other one gave."""
    seen = []
    quick(
        "a cat",
        **LATENT,
        callback_on_step_end=lambda _pipe, step, _time, given: {"latents": given["latents"] * 0 + step},
        on_step=lambda step, _total, latents: seen.append((step, latents.unique().item())),
    )
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 3)]


def test_interrupt_stops_as_in_diffusers(quick):
    steps = []

    def watch(pipeline, step, _timestep, callback_kwargs):
        steps.append(step)
        pipeline.interrupt = step == 1
        return callback_kwargs

    with pytest.raises(StoppedError, match="after step 2 of 4"):
        quick("a cat", **LATENT, callback_on_step_end=watch)
    assert steps == [0, 1]
    assert quick.interrupt
    assert quick("a cat", **LATENT).shape == (1, 8, 8, 16)  # the next call begins anew
    assert not quick.interrupt


def test_interrupt_from_another_thread(quick):
    """Also where nobody gave a callback."""
    running = changed(quick, dit=WatchedDit(quick.dit, lambda index: index == 2 and stop.run()))
    stop = threading.Timer(0, lambda: setattr(running, "interrupt", True))
    with pytest.raises(StoppedError, match="after step 3 of 4"):
        running("a cat", **LATENT)


def test_an_interrupt_is_that_of_the_run_that_is_under_way(quick):
    """A call that waits for its turn neither takes it away nor is stopped by it."""
    waiting, made = [], []

    def interrupt_and_call(index):
        if index == 1 and not waiting:
            running.interrupt = True
            waiting.append(threading.Thread(target=lambda: made.append(running("a cat", **LATENT))))
            waiting[0].start()
            time.sleep(0.2)  # for it to come as far as it can

    running = changed(quick, dit=WatchedDit(quick.dit, interrupt_and_call))
    with pytest.raises(StoppedError, match="after step 2 of 4"):
        running("a cat", **LATENT)
    waiting[0].join()
    assert torch.equal(made[0], quick("a cat", **LATENT))


@pytest.mark.parametrize("name", ["on_step", "callback_on_step_end"])
def test_a_callback_is_a_function(quick, name):
    nobody = changed(quick, dit=None, text_encoder=None)
    with pytest.raises(ValueError, match=f"{name}='x': allowed is a function, or None"):
        nobody("a cat", **LATENT, **{name: "x"})


def test_bars_are_shown_or_not(pipe, capsys):
    pipe("a cat", time_length=0, width=64, height=64, seed=3)
    assert capsys.readouterr().err == ""
    changed(pipe, progress=True)("a cat", time_length=0, width=64, height=64, seed=3)
    shown = capsys.readouterr().err
    assert "sampling, seed 3" in shown
    assert "decoding" in shown


def test_nothing_of_a_runner_can_be_set(pipe):
    runner = Runner(pipe.parts)
    names = ("parts", "dit", "vae", "text_encoder", "model_set", "ranks", "team", "origin", "progress", "finisher")
    for name in names:
        before = getattr(runner, name)
        with pytest.raises(AttributeError):
            setattr(runner, name, None)
        assert getattr(runner, name) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        runner.parts.progress = True


def test_where_weights_are(pipe):
    assert pipe.is_resident
    assert not changed(pipe, dit_home=object()).is_resident
