"""The whole pipeline: against the published one, what a call gives back, and where a pipeline comes from."""

import inspect
import re
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from checkpoint_helpers import hub_of
from fakes import DisturbedVae, QuickVae, WatchedDit, changed
from helpers import TINY, golden_case, golden_folder, psnr, relative_error
from PIL import Image
from safetensors.torch import load_file

from kandinsky.errors import DecodeError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.result import GenerationResult
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.video_shape import VideoShape

CASES = sorted(path.stem.removeprefix("pipeline_") for path in golden_folder().glob("pipeline_*.safetensors"))
SMALL_CALL = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
IMAGE_CALL = {**SMALL_CALL, "time_length": 0}
ON_A_CPU = {"device_map": "cpu"}


@pytest.fixture(scope="module")
def quick(pipe):
    """The pipeline with a VAE that is no network."""
    return changed(pipe, vae=QuickVae())


def latents_of(pipe, call):
    shape = VideoShape.from_request(call["time_length"], call["width"], call["height"])
    return pipe.sample(pipe.encode(call["text"]), shape, seed=call["seed"])


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == "video_2s" else case for case in CASES]
)
def test_latents_equal_the_published(golden_pipe, case):
    call, expected = golden_case(case)
    assert relative_error(golden_pipe.encode(call["text"]), expected["text_embed"]) < 3e-2
    assert relative_error(latents_of(golden_pipe, call), expected["latents"]) < 1e-2


@pytest.mark.parametrize(
    "case", [case if case == "image" else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_frames_equal_the_published(golden_pipe, case):
    call, expected = golden_case(case)
    frames = torch.cat([chunk.clone() for chunk in golden_pipe.vae.decode(latents_of(golden_pipe, call))])
    assert len(frames) == expected["num_frames"]
    assert psnr(frames[expected["frame_index"]], expected["frames"]) >= 50


def test_there_is_something_to_compare_with():
    assert {"image", "video_1s"} <= set(CASES)


def test_same_seed_same_video(pipe):
    first, second, other = (pipe("a cat", output_type="np", **{**SMALL_CALL, "seed": seed}) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_video_is_written(pipe, tmp_path):
    target = tmp_path / "v.mp4"
    result = pipe("a cat", str(target), time_length=1, width=96, height=64, seed=3)
    assert isinstance(result, GenerationResult)
    assert (result.path, result.seed, result.num_frames, result.fps) == (target, 3, 9, 8)
    assert list(result.timings) == ["text", "sample", "decode", "write", "total"]
    assert result.timings["total"] >= sum(list(result.timings.values())[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    assert target.stat().st_size > 1000


def test_arguments_of_the_published_call_may_be_given_by_place(quick, tmp_path):
    names = list(inspect.signature(Kandinsky4T2VPipeline.__call__).parameters)
    published = ["text", "save_path", "bs", "time_length", "width", "height", "seed", "return_frames"]
    assert names[1:9] == published
    frames = quick("a cat", str(tmp_path / "v.mp4"), 1, 1, 96, 64, 3, True)
    assert [frame.size for frame in frames] == [(96, 64)] * 9
    assert list(tmp_path.iterdir()) == []


def test_frames_are_pil_images_that_tell_their_seed(quick):
    frames = quick("a cat", time_length=1, width=96, height=64, return_frames=True)
    assert len(frames) == 9
    assert all(isinstance(frame, Image.Image) and frame.size == (96, 64) for frame in frames)
    (seed,) = {frame.info["seed"] for frame in frames}
    again = quick("a cat", time_length=1, width=96, height=64, seed=seed, output_type="np")
    assert np.array_equal(again, [np.asarray(frame) for frame in frames])


def test_kinds_of_output_are_the_same_frames(pipe):
    kinds = {kind: pipe("a cat", output_type=kind, **SMALL_CALL) for kind in ("pil", "np", "pt", "latent")}
    assert kinds["np"].shape == (9, 64, 64, 3)
    assert np.array_equal(kinds["np"], kinds["pt"])
    assert np.array_equal(kinds["np"], [np.asarray(image) for image in kinds["pil"]])
    assert np.array_equal(kinds["np"], pipe.decode(kinds["latent"]))


def test_images(quick):
    images = quick("a cat", **IMAGE_CALL)
    assert [image.size for image in images] == [(64, 64)]
    assert images[0].info["seed"] == 3
    several = quick("a cat", bs=3, **IMAGE_CALL)
    assert [image.info["seed"] for image in several] == [3, 4, 5]
    assert np.array_equal(several[0], images[0])


def test_an_image_with_a_path_is_a_file(pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = pipe("a cat", "cat.png", **IMAGE_CALL)
    (image,) = pipe("a cat", **IMAGE_CALL)
    assert isinstance(result, GenerationResult)
    assert (result.path, result.num_frames, result.seed) == (Path("cat.png"), 1, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]
    assert np.array_equal(np.asarray(Image.open(result.path)), np.asarray(image))


@pytest.mark.parametrize("prompts", [["a cat"], ["a cat", "a dog"]])
def test_a_list_of_prompts_gives_a_list(quick, tmp_path, prompts):
    files = quick(prompts, tmp_path / "v.mp4", **SMALL_CALL)
    arrays = quick(prompts, output_type="np", **SMALL_CALL)
    latents = quick(prompts, output_type="latent", **SMALL_CALL)
    clips = quick(prompts, return_frames=True, **SMALL_CALL)
    assert [type(found) for found in (files, arrays, latents, clips)] == [list] * 4
    assert [len(found) for found in (files, arrays, latents, clips)] == [len(prompts)] * 4
    for index, prompt in enumerate(prompts):
        alone = quick(prompt, output_type="np", **{**SMALL_CALL, "seed": 3 + index})
        assert np.array_equal(alone, arrays[index])
        assert np.array_equal(alone, [np.asarray(frame) for frame in clips[index]])
        assert files[index].seed == 3 + index
    names = ["v.mp4"] if len(prompts) == 1 else ["v-0.mp4", "v-1.mp4"]
    assert [result.path.name for result in files] == names
    assert isinstance(quick("a cat", output_type="np", **SMALL_CALL), np.ndarray)


def test_several_videos_equal_those_made_alone(quick, tmp_path):
    results = quick(["a cat", "a dog"], tmp_path / "v.mp4", 2, **SMALL_CALL)
    assert [(result.path.name, result.seed) for result in results] == [(f"v-{n}.mp4", 3 + n) for n in range(4)]
    for result, prompt in zip(results, ("a cat", "a cat", "a dog", "a dog"), strict=True):
        alone = quick(prompt, tmp_path / "alone.mp4", **{**SMALL_CALL, "seed": result.seed})
        assert alone.path.read_bytes() == result.path.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 100}, "width=100, height=64: allowed"),
        ({"output_type": "gif"}, "output_type='gif': allowed are"),
        ({"save_path": "/nowhere/v.mp4"}, "the folder '/nowhere' does not exist"),
        ({"on_step": "x"}, "on_step='x': allowed is a function"),
        ({"fps": 8, "output_type": "pil"}, "fps=8: nothing is written"),
    ],
)
def test_a_wrong_argument_is_told_before_a_model_runs(pipe, wrong, message):
    """What each argument may be is told by `tests/test_request.py` and `tests/output/test_options.py`."""
    nobody = changed(pipe, text_encoder=None, dit=None)
    with pytest.raises(ValueError, match=message):
        nobody(**{"text": "a cat", **SMALL_CALL, **wrong})


def test_latents_are_finished_later(pipe, tmp_path):
    latents = pipe("a cat", output_type="latent", **SMALL_CALL)
    expected = pipe("a cat", tmp_path / "v.mp4", metadata=False, **SMALL_CALL).path.read_bytes()
    result = pipe.decode_to(latents, tmp_path / "w.mp4")
    assert result.path.read_bytes() == expected
    assert (result.seed, result.num_frames, result.fps) == (None, 9, 8)
    assert result.timings["total"] > 0


def test_a_failed_decode_leaves_latents_that_give_the_same_video(pipe, tmp_path):
    def fail(_number):
        raise RuntimeError("decode failed")

    expected = pipe("a cat", tmp_path / "expected.mp4", **SMALL_CALL).path.read_bytes()
    (tmp_path / "new").mkdir()
    with pytest.raises(DecodeError, match=r"sampled, but not finished \(decode failed\); its latents are saved in"):
        changed(pipe, vae=DisturbedVae(pipe.vae, fail))("a cat", tmp_path / "new" / "v.mp4", **SMALL_CALL)
    (left,) = (tmp_path / "new").iterdir()
    assert left.name == "v.latents.safetensors"
    assert pipe.decode_to(left).path.read_bytes() == expected


def run_out(times):
    """What runs out of memory in the first `times` attempts."""

    def during(number):
        if number <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    return during


def test_out_of_memory_is_tried_once_more(pipe, tmp_path):
    expected = pipe("a cat", tmp_path / "expected.mp4", **SMALL_CALL).path.read_bytes()
    vae = DisturbedVae(pipe.vae, run_out(1))
    result = changed(pipe, vae=vae)("a cat", tmp_path / "v.mp4", **SMALL_CALL)
    assert vae.attempts == [None, True]
    assert result.path.read_bytes() == expected


def test_out_of_memory_twice_saves_the_latents(pipe, tmp_path):
    vae = DisturbedVae(pipe.vae, run_out(2))
    with pytest.raises(DecodeError, match=r"Tried to allocate 1.00 GiB.*saved in .*v\.latents\.safetensors"):
        changed(pipe, vae=vae)("a cat", tmp_path / "v.mp4", **SMALL_CALL)
    assert vae.attempts == [None, True]
    assert [path.name for path in tmp_path.iterdir()] == ["v.latents.safetensors"]
    saved = load_file(tmp_path / "v.latents.safetensors")["latents"]
    assert torch.equal(saved, pipe("a cat", output_type="latent", **SMALL_CALL))


def test_an_interrupt_while_sampling_leaves_nothing(pipe, tmp_path):
    def interrupt(index):
        if index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        changed(pipe, dit=WatchedDit(pipe.dit, interrupt))("a cat", tmp_path / "v.mp4", **SMALL_CALL)
    assert list(tmp_path.iterdir()) == []


def test_from_a_folder(small_weights, pipe):
    loaded = Kandinsky4T2VPipeline.from_pretrained(small_weights, device_map="cpu", progress=False)
    assert loaded.model_set == pipe.model_set
    assert torch.equal(
        loaded("a cat", output_type="latent", **IMAGE_CALL), pipe("a cat", output_type="latent", **IMAGE_CALL)
    )


@pytest.mark.parametrize(("revision", "wanted"), [(None, None), ("v2", "v2"), ({"some/body": "v2"}, "v2"), ({}, None)])
def test_from_a_repository_of_somebody(small_weights, monkeypatch, revision, wanted):
    asked = hub_of(small_weights, monkeypatch)
    options = {"device_map": "cpu", "progress": False, "local_files_only": True}
    pipe = Kandinsky4T2VPipeline.from_pretrained("some/body", revision=revision, **options)
    assert asked == [("some/body", wanted, True)]
    assert pipe.model_set.sizes == ((64, 64), (96, 64))


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("no folder", {}, "folder_or_repo='no folder': allowed is a folder that exists, or owner/name on the hub"),
        (3, {}, "folder_or_repo=3: allowed is a path of text"),
        ("some/body", {**ON_A_CPU, "revision": 3}, "revision=3: allowed are a text for all repositories, a mapping"),
        ("some/body", {**ON_A_CPU, "revision": {"a/b": "v"}}, "revision names 'a/b'; the repositories are some/body"),
        (TINY, {"device_map": "gpu"}, "device_map='gpu' is not a device"),
        (TINY, {"cache_dir": "there"}, "cache_dir='there': all weights come from"),
        ("some/body", {"cache_dir": "there"}, "cache_dir='there': all weights come from 'some/body'"),
        ("some/body", {"device_map": "gpu"}, "device_map='gpu' is not a device"),
        ("some/body", {**ON_A_CPU, "precision": "half"}, "precision='half': allowed are"),
        ("some/body", {**ON_A_CPU, "prompt_cache": 3}, "prompt_cache=3: allowed is a path of text"),
    ],
)
def test_from_nowhere(place, options, message, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=re.escape(message)):
        Kandinsky4T2VPipeline.from_pretrained(place, **options)


def test_saved_and_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "new")
    loaded = Kandinsky4T2VPipeline.from_pretrained(tmp_path / "new", device_map="cpu", progress=False)
    assert loaded.model_set == pipe.model_set
    assert loaded.parts.schedule == pipe.parts.schedule
    assert torch.equal(
        loaded("a cat", output_type="latent", **IMAGE_CALL), pipe("a cat", output_type="latent", **IMAGE_CALL)
    )


def test_what_is_not_as_it_was_loaded_is_not_saved(tmp_path):
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, text_encoder_int8=True, progress=False)
    with pytest.raises(ValueError, match="save_pretrained: the weights are quantised"):
        pipe.save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_moved_to_a_device(small_weights, pipe):
    """It gives itself, so that calls can be chained; what it makes is the same."""
    loaded = get_T2V_pipeline("cpu", cache_dir=small_weights, progress=False)
    before = loaded.parts
    assert loaded.to("cpu") is loaded
    assert loaded.parts is not before
    assert np.array_equal(
        loaded("a cat", output_type="np", **IMAGE_CALL), pipe("a cat", output_type="np", **IMAGE_CALL)
    )
    with pytest.raises(ValueError, match="device_map='gpu' is not a device"):
        loaded.to("gpu")
