"""Latents to what was asked for, with a VAE that is no network."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fakes import CPU, FAILS_AT_THE_END, RECORD, SMALL_LATENTS, DisturbedVae, QuickVae, ffmpeg_script
from helpers import SMALL

from kandinsky.config import FLASH_512
from kandinsky.errors import DecodeError
from kandinsky.output import finisher as finisher_module
from kandinsky.output.finisher import Finisher
from kandinsky.output.options import OutputOptions, output_of
from kandinsky.output.remaining import remaining_of
from kandinsky.output.result import FramesResult, GenerationResult, LatentsResult
from kandinsky.output.unfinished import SUFFIX, VaeSource, load_unfinished
from kandinsky.output.video import read_comment
from kandinsky.progress import Clock

QUICK = Finisher(QuickVae(), SMALL, progress=False)
FRAMES = np.concatenate([chunk.numpy() for chunk in QuickVae().frames(SMALL_LATENTS)])


def begun(finisher, path=None, *, latents=SMALL_LATENTS, clock=None, **options):
    """What `begin` gives."""
    output, target = output_of(path, OutputOptions(**options), is_image=len(latents) == 1, model_fps=8)
    return finisher.begin(latents, target, output=output, record=RECORD, clock=clock or Clock(frozenset([CPU])))


def test_a_file(tmp_path):
    finish = begun(QUICK, tmp_path / "v.mp4", fps=12)
    assert not (tmp_path / "v.mp4").exists()
    result = finish()
    assert isinstance(result, GenerationResult)
    assert (result.path, result.seed, result.num_frames, result.fps) == (tmp_path / "v.mp4", 3, 9, 12)
    assert list(result.timings) == ["decode", "write", "total"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    assert read_comment(tmp_path / "v.mp4") == RECORD.to_json()


def test_the_encoder_starts_while_the_device_works(tmp_path, monkeypatch):
    """Neither waits for the other: the first frames come when the encoder is there, which begins before them."""
    there, inner = threading.Event(), finisher_module.open_writer

    class WaitingVae(QuickVae):
        def frames(self, latents, *, memory_saving=None):
            assert there.wait(10)
            yield from super().frames(latents, memory_saving=memory_saving)

    def open_writer(*arguments, **settings):
        there.set()
        return inner(*arguments, **settings)

    monkeypatch.setattr(finisher_module, "open_writer", open_writer)
    assert begun(Finisher(WaitingVae(), SMALL, progress=False), tmp_path / "v.mp4")().num_frames == 9


def test_an_encoder_that_does_not_start(tmp_path, monkeypatch):
    def open_writer(*_arguments, **_settings):
        raise OSError("no process can be started")

    monkeypatch.setattr(finisher_module, "open_writer", open_writer)
    with pytest.raises(DecodeError, match="no process can be started"):
        begun(QUICK, tmp_path / "v.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [f"v{SUFFIX}"]


def test_an_encoder_that_starts_after_an_interrupt(tmp_path, monkeypatch):
    """It ends as soon as it is there, and leaves nothing."""
    may_start, opened, inner = threading.Event(), [], finisher_module.open_writer

    def open_writer(*arguments, **settings):
        assert may_start.wait(10)
        opened.append(inner(*arguments, **settings))
        return opened[0]

    class Interrupted(ThreadPoolExecutor):
        def __exit__(self, *_error):
            pools.append(self)
            raise KeyboardInterrupt

    pools = []
    monkeypatch.setattr(finisher_module, "open_writer", open_writer)
    monkeypatch.setattr(finisher_module, "ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        begun(QUICK, tmp_path / "v.mp4")
    may_start.set()
    pools[0].shutdown()
    assert opened[0]._process.poll() is not None
    assert not [path for path in tmp_path.iterdir() if ".partial" in path.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_decoder_that_ends_before_the_encoder_is_there(tmp_path, monkeypatch, error):
    """The encoder is waited for and ended; nothing of it is left."""
    inner, failed, writers = finisher_module.open_writer, threading.Event(), []

    class FailingVae(QuickVae):
        def frames(self, *_arguments, **_settings):
            failed.set()
            raise error
            yield

    def open_writer(*arguments, **settings):
        assert failed.wait(10)
        writers.append(inner(*arguments, **settings))
        return writers[0]

    monkeypatch.setattr(finisher_module, "open_writer", open_writer)
    with pytest.raises((error, DecodeError)):
        begun(Finisher(FailingVae(), SMALL, progress=False), tmp_path / "v.mp4")
    assert writers[0]._process.poll() is not None
    assert [path.name for path in tmp_path.iterdir()] == [f"v{SUFFIX}"]


def test_a_file_without_a_record(tmp_path):
    assert read_comment(begun(QUICK, tmp_path / "v.mp4", metadata=False)().path) is None


def test_an_image_plays_at_the_models_speed(tmp_path):
    result = begun(QUICK, tmp_path / "i.png", latents=SMALL_LATENTS[:1])()
    assert (result.num_frames, result.fps) == (1, SMALL.fps)


def test_frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {kind: begun(QUICK, type=kind)() for kind in ("pil", "np", "pt")}
    assert all(isinstance(result, FramesResult) and result.seed == 3 for result in found.values())
    assert np.array_equal(found["np"].frames, FRAMES)
    assert torch.equal(found["pt"].frames, torch.from_numpy(FRAMES))
    assert np.array_equal([np.asarray(image) for image in found["pil"].frames], FRAMES)
    assert {image.info["seed"] for image in found["pil"].frames} == {3}
    assert list(found["np"].timings) == ["decode", "total"]
    assert list(tmp_path.iterdir()) == []


def test_latents_are_handed_on():
    nobody = Finisher(None, SMALL)  # no VAE is needed
    result = begun(nobody, type="latent")()
    assert isinstance(result, LatentsResult)
    assert result.latents is SMALL_LATENTS
    assert list(result.timings) == ["total"]


def test_a_file_is_finished_from_another_thread(tmp_path):
    finish, results = begun(QUICK, tmp_path / "v.mp4"), []
    thread = threading.Thread(target=lambda: results.append(finish()))
    thread.start()
    thread.join()
    assert results[0].path.is_file()


def test_latents_are_safe_until_the_file_is_there(tmp_path, monkeypatch):
    """A failure of `begin` and one of what it gives both leave them, with what it takes to finish."""
    source = VaeSource("/weights/vae", "cpu", "float32", memory_saving=False)
    finisher = Finisher(QuickVae(), SMALL, source, progress=False)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, FAILS_AT_THE_END))
    finish = begun(finisher, tmp_path / "v.mp4", metadata=False)
    with pytest.raises(DecodeError, match=rf"No space left on device\); its latents are saved in .*v\{SUFFIX}"):
        finish()
    left, target = load_unfinished(tmp_path / f"v{SUFFIX}")
    assert torch.equal(left.latents, SMALL_LATENTS)
    assert (left.record, left.metadata, left.vae) == (RECORD, False, source)
    assert target == str(tmp_path / "v.mp4")


@pytest.mark.parametrize("kind", ["file", "np", "latent"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path, monkeypatch, kind, value):
    monkeypatch.chdir(tmp_path)
    spoiled = SMALL_LATENTS.clone()
    spoiled[1, 2, 3, 4] = value
    with pytest.raises(DecodeError, match="not finite: the weights may be damaged"):
        begun(QUICK, tmp_path / "v.mp4", latents=spoiled, type=kind)
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == len(list(tmp_path.iterdir())) == 1


def run_out(times):
    def during(number):
        if number <= times:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return DisturbedVae(QuickVae(), during)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "np"])
def test_out_of_memory_is_tried_once_more(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    once = run_out(1)
    assert begun(Finisher(once, SMALL, progress=False), tmp_path / "v.mp4", type=kind)().timings
    assert once.attempts == [None, True]
    twice = run_out(2)
    with pytest.raises(DecodeError, match="CUDA out of memory"):
        begun(Finisher(twice, SMALL, progress=False), tmp_path / "w.mp4", type=kind)
    assert twice.attempts == [None, True]


def test_several_processes_cannot_try_again(tmp_path):
    """The others have decoded their parts already."""
    vae = run_out(1)
    with pytest.raises(DecodeError, match="CUDA out of memory"):
        begun(Finisher(vae, SMALL, alone=False, progress=False), tmp_path / "v.mp4")
    assert vae.attempts == [None]


def test_the_rescue_is_asked_meanwhile(tmp_path):
    saved = []

    class Registered:
        def __init__(self, save):
            self.save = save

        def __enter__(self):
            saved.append("begun")
            self.save()

        def __exit__(self, *_):
            saved.append("ended")

    finish = begun(Finisher(QuickVae(), SMALL, rescue=Registered, progress=False), tmp_path / "v.mp4")
    assert saved == ["begun"]
    finish()
    assert saved == ["begun", "ended"]
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_what_is_left_is_finished(tmp_path):
    expected = begun(QUICK, tmp_path / "v.mp4")().path.read_bytes()
    failing = Finisher(DisturbedVae(QuickVae(), lambda _: 1 / 0), SMALL, progress=False)
    with pytest.raises(DecodeError, match="division by zero"):
        begun(failing, tmp_path / "v.mp4")
    remaining = remaining_of(tmp_path / f"v{SUFFIX}", tmp_path / "w.mp4", model_set=SMALL)
    assert QUICK.finish(remaining).path.read_bytes() == expected
    assert (tmp_path / f"v{SUFFIX}").is_file()  # which stays: it is the user's


def test_what_fails_again(tmp_path):
    failing = Finisher(DisturbedVae(QuickVae(), lambda _: 1 / 0), SMALL, progress=False)
    with pytest.raises(DecodeError):
        begun(failing, tmp_path / "v.mp4")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    remaining = remaining_of(tmp_path / f"v{SUFFIX}", model_set=SMALL)
    with pytest.raises(DecodeError, match=rf"not finished \(division by zero\); the latents are still in .*v\{SUFFIX}"):
        failing.finish(remaining)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    alone = remaining_of(SMALL_LATENTS, tmp_path / "v.mp4", model_set=SMALL)
    with pytest.raises(DecodeError, match=r"not finished \(division by zero\)$"):
        failing.finish(alone)


def test_what_cannot_be_finished_here(tmp_path):
    remaining = remaining_of(SMALL_LATENTS[..., :4], tmp_path / "v.mp4", model_set=SMALL)
    with pytest.raises(ValueError, match=r"allowed for this VAE: floating-point \[T, H, W, 16\]"):
        QUICK.finish(remaining)


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar(capsys, progress):
    Finisher(QuickVae(), FLASH_512, progress=progress).frames(SMALL_LATENTS, "np")
    assert ("decoding" in capsys.readouterr().err) == progress
