"""The whole pipeline: against the published one, reproducible, and with every argument checked before a model runs."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import golden_case, psnr, relative_error
from PIL import Image
from safetensors.torch import load_file

from kandinsky.errors import DecodeError, StoppedError
from kandinsky.output.result import GenerationResult
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.request import request_of
from kandinsky.video_shape import VideoShape

CASES = ("image", "video_1s", "video_2s")


@pytest.mark.parametrize("case", CASES)
def test_equals_published(golden_pipe, case):
    try:
        call, expected = golden_case(case)
    except FileNotFoundError:
        pytest.skip("this golden file is not in the repository's own small copy")
    shape = VideoShape.from_request(call["time_length"], call["width"], call["height"])
    text = golden_pipe.text_encoder(call["text"])
    latents = golden_pipe.sample(text, shape, seed=call["seed"])
    frames = torch.cat(list(golden_pipe.vae.decode(latents)))
    assert relative_error(text, expected["text_embed"]) < 3e-2
    assert relative_error(latents, expected["latents"]) < 1e-2
    assert len(frames) == expected["num_frames"]
    assert psnr(frames[expected["frame_index"]], expected["frames"]) >= 50


def frames_of(pipe, text="a cat", **arguments):
    """Frames as one array."""
    settings = {"width": 64, "height": 64, "time_length": 1, "seed": 3, "return_frames": True}
    return [np.asarray(frame) for frame in pipe(text, **{**settings, **arguments})]


def test_same_seed_same_video(pipe):
    first, second, other = frames_of(pipe), frames_of(pipe), frames_of(pipe, seed=4)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_video_is_written(pipe, tmp_path):
    target = tmp_path / "v.mp4"
    result = pipe("a cat", str(target), time_length=1, width=96, height=64, seed=3)
    assert isinstance(result, GenerationResult)
    assert (result.path, result.seed, result.num_frames, result.fps) == (target, 3, 9, 8)
    assert list(result.timings) == ["text", "sample", "decode", "write", "total"]
    assert result.timings["total"] >= sum(list(result.timings.values())[:-1])
    assert target.stat().st_size > 1000


def test_frames_are_pil_images_that_tell_their_seed(pipe):
    frames = pipe("a cat", time_length=1, width=96, height=64, return_frames=True)
    assert len(frames) == 9
    assert all(isinstance(frame, Image.Image) and frame.size == (96, 64) for frame in frames)
    seeds = {frame.info["seed"] for frame in frames}
    assert np.array_equal(frames_of(pipe, width=96, seed=seeds.pop()), [np.asarray(frame) for frame in frames])
    assert not seeds


def test_image(pipe):
    images = pipe("a cat", time_length=0, width=64, height=64, seed=3)
    assert [image.size for image in images] == [(64, 64)]
    assert len(pipe("a cat", time_length=0, width=64, height=64, bs=3)) == 3


def test_several_videos_equal_those_made_alone(pipe, tmp_path):
    settings = {"time_length": 1, "width": 64, "height": 64}
    results = pipe(["a cat", "a dog"], tmp_path / "v.mp4", 2, seed=5, **settings)
    assert [result.path.name for result in results] == ["v-0.mp4", "v-1.mp4", "v-2.mp4", "v-3.mp4"]
    assert [result.seed for result in results] == [5, 6, 7, 8]
    for result, prompt in zip(results, ("a cat", "a cat", "a dog", "a dog"), strict=True):
        alone = pipe(prompt, tmp_path / "alone.mp4", seed=result.seed, **settings)
        assert alone.path.read_bytes() == result.path.read_bytes()


def test_two_prompts_equal_two_calls(pipe):
    together = pipe(["a cat", "a dog"], time_length=1, width=64, height=64, seed=3, return_frames=True)
    alone = frames_of(pipe, "a cat", seed=3), frames_of(pipe, "a dog", seed=4)
    assert [[np.asarray(frame).tolist() for frame in clip] for clip in together] == [
        [frame.tolist() for frame in clip] for clip in alone
    ]


WRONG = {
    "size": ({"width": 100}, "width=100, height=64: allowed width x height: 64x64, 96x64"),
    "negative length": ({"time_length": -1}, "time_length=-1: allowed is 0"),
    "fraction": ({"time_length": 1.5}, "time_length=1.5: must be a whole number"),
    "too long": ({"time_length": 64}, "time_length=64: allowed is 0"),
    "bs": ({"bs": 0}, "bs=0: allowed is 1 and more"),
    "bs fraction": ({"bs": 1.5}, "bs=1.5: must be a whole number"),
    "text": ({"text": 5}, "text=5: allowed is a string, or a list of one or more strings"),
    "no text": ({"text": []}, r"text=\[\]: allowed is a string"),
    "text in list": ({"text": ["a", None]}, "text=None: allowed is a string"),
    "bytes": ({"text": b"a cat"}, "text=b'a cat': allowed is a string"),
    "negative seed": ({"seed": -1}, "seed=-1: allowed is 0 to 9223372036854775807"),
    "large seed": ({"seed": 2**63}, "seed=9223372036854775808: allowed is 0 to 9223372036854775807"),
    "large seeds": ({"seed": 2**63 - 1, "bs": 2}, r"allowed is 0 to 9223372036854775806 \(2 videos count up from it\)"),
    "surrogate": ({"text": "\ud800"}, "allowed is text that UTF-8 can hold"),
    "too many": ({"bs": 6000, "text": ["a", "b"]}, "bs=6000 of 2 prompts: allowed are 10000 videos a call"),
    "callback": ({"callback_on_step_end": 1}, "callback_on_step_end=1: allowed is a function, or None"),
    "on_step": ({"on_step": "x"}, "on_step='x': allowed is a function, or None"),
    "image's ending": ({"time_length": 0, "save_path": "v.mp4"}, r"save_path='v.mp4': must end with one of \.png"),
    "no path": ({"save_path": None}, "save_path=None: allowed with output_type='file' is a path"),
    "seed": ({"seed": "x"}, "seed='x': must be a whole number"),
    "ending": ({"save_path": "v.avi"}, r"save_path='v.avi': must end with one of \.mp4"),
    "bytes as path": ({"save_path": b"v.mp4"}, "save_path=b'v.mp4': allowed is a path of text"),
    "long name": ({"save_path": "v" * 300 + ".mp4"}, "allowed is a name in UTF-8.* of at most 255 bytes"),
    "long name of the last": ({"save_path": "v" * 250 + ".mp4", "bs": 10}, "of at most 255 bytes"),
    "null": ({"save_path": "a\0.mp4"}, "allowed is a name in UTF-8 without"),
    "folder": ({"save_path": "/nowhere/v.mp4"}, "the folder '/nowhere' does not exist"),
    "read-only folder": ({"save_path": "/proc/v.mp4"}, "cannot write in '/proc'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(pipe, case):
    pipe = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, text_encoder=None, dit=None))  # no model can run
    arguments, message = WRONG[case]
    settings = {"text": "a cat", "time_length": 1, "width": 64, "height": 64, "seed": 1}
    with pytest.raises(ValueError, match=message):
        pipe(**{**settings, **arguments})


def test_no_encoder(pipe, monkeypatch):
    def none():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", none)
    with pytest.raises(ValueError, match="no ffmpeg to write videos with"):
        pipe("a cat", time_length=1, width=64, height=64)


def test_failed_decode_leaves_the_latents_only(pipe, tmp_path, monkeypatch):
    def fail(_latents, **_settings):
        yield torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
        raise RuntimeError("decode failed")

    monkeypatch.setattr(pipe.vae, "decode", fail)
    with pytest.raises(DecodeError, match="decode failed"):
        pipe("a cat", tmp_path / "v.mp4", time_length=1, width=64, height=64)
    assert [path.name for path in tmp_path.iterdir()] == ["v.latents.safetensors"]


def run_out_of_memory(pipe, monkeypatch, times):
    """Decoding runs out of memory after its first chunk, `times` times; returns the settings of each attempt."""
    decode, attempts = pipe.vae.decode, []

    def fail(latents, *, memory_saving):
        attempts.append(memory_saving)
        chunks = decode(latents, memory_saving=memory_saving)
        yield next(chunks)
        if len(attempts) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        yield from chunks

    monkeypatch.setattr(pipe.vae, "decode", fail)
    return attempts


def test_out_of_memory_is_tried_once_more(pipe, tmp_path, monkeypatch):
    settings = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    expected = pipe("a cat", tmp_path / "expected.mp4", **settings).path.read_bytes()
    attempts = run_out_of_memory(pipe, monkeypatch, 1)
    result = pipe("a cat", tmp_path / "v.mp4", **settings)
    assert attempts == [None, True]
    assert result.path.read_bytes() == expected


def test_out_of_memory_twice_saves_the_latents(pipe, tmp_path, monkeypatch):
    settings = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    expected = frames_of(pipe)
    with monkeypatch.context() as patch:
        run_out_of_memory(pipe, patch, 2)
        with pytest.raises(DecodeError, match=r"Tried to allocate 1.00 GiB.*saved in .*v\.latents\.safetensors"):
            pipe("a cat", tmp_path / "v.mp4", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["v.latents.safetensors"]
    latents = load_file(tmp_path / "v.latents.safetensors")["latents"]
    assert np.array_equal(torch.cat(list(pipe.vae.decode(latents))), expected)


def test_progress_can_be_turned_off(pipe, capsys):
    frames_of(pipe)
    assert capsys.readouterr().err == ""
    frames_of(Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, progress=True)))
    shown = capsys.readouterr().err
    assert "sampling, seed 3" in shown
    assert "decoding" in shown


def test_on_step(pipe, tmp_path):
    seen = []
    settings = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    expected = pipe("a cat", tmp_path / "expected.mp4", **settings).path.read_bytes()

    def watch(step, total, latents):
        seen.append((step, total, tuple(latents.shape)))

    result = pipe("a cat", tmp_path / "v.mp4", **settings, on_step=watch)
    assert seen == [(step, 4, (3, 8, 8, 16)) for step in (1, 2, 3, 4)]
    assert result.path.read_bytes() == expected


def test_on_step_stops_the_run(pipe, tmp_path):
    with pytest.raises(StoppedError, match="a callback stopped the run after step 2 of 4"):
        pipe("a cat", tmp_path / "v.mp4", 1, 1, 64, 64, on_step=lambda step, _total, _latents: step < 2)
    assert list(tmp_path.iterdir()) == []


def test_callback_is_that_of_diffusers(pipe):
    """It gets the pipeline, the index, the timestep and the latents; those that it returns are gone on with."""
    settings = {"time_length": 1, "width": 64, "height": 64, "seed": 3, "output_type": "latent"}
    expected, seen = pipe("a cat", **settings), []

    def watch(pipeline, step, timestep, callback_kwargs):
        seen.append((pipeline is pipe, step, timestep, list(callback_kwargs)))
        return callback_kwargs

    assert torch.equal(pipe("a cat", **settings, callback_on_step_end=watch), expected)
    assert seen == [(True, step, timestep, ["latents"]) for step, timestep in enumerate((999, 749, 499, 249))]

    def last_is_zero(_pipe, step, _timestep, callback_kwargs):
        return {"latents": torch.zeros_like(callback_kwargs["latents"])} if step == 3 else callback_kwargs

    assert not pipe("a cat", **settings, callback_on_step_end=last_is_zero).any()

    def first_is_other(_pipe, step, _timestep, callback_kwargs):
        return {"latents": callback_kwargs["latents"] + (step == 0)}

    assert relative_error(pipe("a cat", **settings, callback_on_step_end=first_is_other), expected) > 1e-3


def test_interrupt_stops_as_in_diffusers(pipe, tmp_path):
    steps = []

    def watch(pipeline, step, _timestep, callback_kwargs):
        steps.append(step)
        pipeline.interrupt = step == 1
        return callback_kwargs

    with pytest.raises(StoppedError, match="after step 2 of 4"):
        pipe("a cat", tmp_path / "v.mp4", 1, 1, 64, 64, callback_on_step_end=watch)
    assert steps == [0, 1]
    assert list(tmp_path.iterdir()) == []
    assert pipe("a cat", tmp_path / "v.mp4", 1, 1, 64, 64).num_frames == 9  # the next call begins anew


def test_image_with_a_path_is_a_file(pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = pipe("a cat", "cat.png", time_length=0, width=64, height=64, seed=3)
    (image,) = pipe("a cat", time_length=0, width=64, height=64, seed=3)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]
    assert np.array_equal(np.asarray(Image.open(result.path)), np.asarray(image))


def test_a_list_gives_a_list(pipe):
    settings = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    assert isinstance(pipe("a cat", output_type="np", **settings), np.ndarray)
    (alone,) = pipe(["a cat"], output_type="np", **settings)
    assert np.array_equal(alone, pipe("a cat", output_type="np", **settings))


def test_results_and_requests_are_frozen(pipe, tmp_path):
    request = request_of("a cat", tmp_path / "v.mp4", 1, 1, 64, 64, 3, model_set=pipe.model_set)
    (result,) = pipe.run(request)
    for value, name in ((request, "shape"), (result, "path"), (pipe.parts, "progress")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
    with pytest.raises(AttributeError):
        pipe.model_set = None


def test_interrupt_while_sampling_leaves_nothing(pipe, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipe.dit, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipe("a cat", tmp_path / "v.mp4", time_length=1, width=64, height=64)
    assert list(tmp_path.iterdir()) == []
