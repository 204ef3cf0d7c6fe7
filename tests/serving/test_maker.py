"""Jobs through a real pipeline of tiny weights: the file equals that of a call; cancels, previews, what was left."""

import io
import shutil
from dataclasses import replace

import openai
import pytest
from helpers import LONG
from lora_helpers import plain_file
from PIL import Image
from serving_kit import ASKED, ThreadWorker, client_of, ended, names_in, posted, served, until

from kandinsky.output.unfinished import load_unfinished
from kandinsky.output.video import VideoWriter
from kandinsky.serving import maker as maker_module
from kandinsky.serving.maker import Maker
from kandinsky.serving.messages import Done, Failed, Free, Make, Stage, Step, Stopped
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store

SIZE = {"time_length": 1, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def wanted(pipe, tmp_path_factory):
    """The file that a call with `ASKED` makes."""
    path = tmp_path_factory.mktemp("wanted") / "video.mp4"
    pipe(ASKED.text, path, seed=ASKED.seed, **SIZE)
    return path.read_bytes()


@pytest.fixture
def said():
    return []


@pytest.fixture
def maker(pipe, said):
    maker = Maker(pipe, said.append)
    yield maker
    maker.close()


def order(folder, **settings):
    return Make("video_1", ASKED, str(folder / "video_1"), **settings)


def finish(maker):
    maker._finisher.submit(lambda: None).result()


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_file_of_the_openai_client_equals_that_of_a_call(pipe, tmp_path, wanted):
    with Store(tmp_path) as store:
        scheduler = Scheduler(store, {"w": lambda name, report: ThreadWorker(pipe, name, report)})
        scheduler.start()
        with served(scheduler) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client:
            made = client.videos.create_and_poll(
                prompt=ASKED.text, seconds="1", size="64x64", extra_body={"seed": ASKED.seed}, poll_interval_ms=50
            )
            assert client.videos.download_content(made.id).read() == wanted
            image = client.images.generate(prompt="a cat", size="64x64", extra_body={"seed": 4})
            assert image.data[0].b64_json.startswith("iVBOR")
            with client_of(address) as plain:
                again = ended(plain, posted(plain, prompt=ASKED.text, seed=ASKED.seed)["id"])
                assert plain.get(f"/v1/videos/{again['id']}/content").content == wanted
                assert set(again["timings"]) == {"text", "sample", "decode", "write", "total"}
        scheduler.drain()
        scheduler.wait_until_gone(LONG)


def test_memory_is_that_of_all_its_gpus(monkeypatch):
    """A worker whose device is not the first one says what it has there."""
    cuda = maker_module.torch.cuda
    for name, value in {"is_available": True, "is_initialized": True, "device_count": 2}.items():
        monkeypatch.setattr(cuda, name, lambda value=value: value)
    monkeypatch.setattr(cuda, "memory_allocated", lambda device=0: [0, 5][device])
    assert maker_module.memory_in_use() == 5


def test_what_it_says(maker, said, tmp_path, wanted):
    maker.make(order(tmp_path))
    finish(maker)
    kinds = [message.name if isinstance(message, Stage) else type(message).__name__ for message in said]
    assert kinds[:-2] == ["text", "Step", "Step", "Step", "Step", "decode", "write"]
    assert set(kinds[-2:]) == {"Free", "Done"}
    assert [message.picture for message in said if isinstance(message, Step)] == [None] * 4
    assert names_in(tmp_path) == ["video_1/video.mp4"]
    assert (tmp_path / "video_1" / "video.mp4").read_bytes() == wanted


def test_a_job_has_its_own_loras_and_the_next_one_the_usual(pipe, said, tmp_path, wanted):
    pipe.load_lora_weights(plain_file(tmp_path / "one.safetensors", 0), weight=0.5)
    try:
        maker = Maker(pipe, said.append)
        seen = {}
        for name, loras in (("own", {"one": 0.0}), ("usual", None), ("unknown", {"two": 1.0})):
            maker.make(Make(name, replace(ASKED, loras=loras), str(tmp_path / name)))
            seen[name] = pipe.loras
        maker.close()
    finally:
        pipe.unload_lora_weights()
    assert (tmp_path / "own" / "video.mp4").read_bytes() == wanted
    assert (tmp_path / "usual" / "video.mp4").read_bytes() != wanted
    assert (seen["own"], seen["usual"]) == ({"one": 0.0}, {"one": 0.5})
    (failed,) = (message for message in said if isinstance(message, Failed))
    assert "loras: 'two' is unknown; allowed are 'one'" in failed.reason


def test_previews_show_the_middle_frame_and_change_nothing(maker, said, tmp_path, wanted):
    maker.make(order(tmp_path, preview=True))
    finish(maker)
    pictures = [message.picture for message in said if isinstance(message, Step)]
    assert len({*pictures}) == 4
    assert all(Image.open(io.BytesIO(picture)).size == (64, 64) for picture in pictures)
    assert (tmp_path / "video_1" / "video.mp4").read_bytes() == wanted


def test_cancelled_after_the_step_that_runs(pipe, tmp_path):
    said = []

    def say(message):
        said.append(message)
        if isinstance(message, Step) and message.step == 2:
            maker.cancel("video_1")

    maker = Maker(pipe, say)
    maker.make(order(tmp_path))
    assert [message.step for message in said if isinstance(message, Step)] == [1, 2]
    assert said[-2:] == [Stopped("video_1"), Free()]
    assert names_in(tmp_path) == []
    maker.close()


def test_what_was_sampled_is_finished_from_its_latents(maker, pipe, said, tmp_path, wanted, monkeypatch):
    def breaks(_self):
        raise OSError("the encoder is gone")

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "finish", breaks)
        maker.make(order(tmp_path))
        finish(maker)
    assert isinstance(failure := next(message for message in said if isinstance(message, Failed)), Failed)
    assert "the encoder is gone" in failure.reason
    assert names_in(tmp_path) == ["video_1/video.latents.safetensors"]
    said.clear()
    monkeypatch.setattr(pipe, "begin", None)  # it is not sampled again
    maker.make(order(tmp_path))
    assert [type(message) for message in said] == [Stage, Done, Free]
    assert names_in(tmp_path) == ["video_1/video.mp4"]
    assert (tmp_path / "video_1" / "video.mp4").read_bytes() == wanted


def test_a_file_that_was_not_noted_is_taken(maker, said, pipe, tmp_path, monkeypatch):
    (tmp_path / "video_1").mkdir()
    (tmp_path / "video_1" / "video.mp4").write_bytes(b"complete")
    monkeypatch.setattr(pipe, "begin", None)
    maker.make(order(tmp_path))
    assert [type(message) for message in said] == [Done, Free]
    assert (tmp_path / "video_1" / "video.mp4").read_bytes() == b"complete"


def test_latents_that_are_damaged_or_of_another_job_are_not_used(maker, pipe, tmp_path, wanted):
    folder = tmp_path / "video_1"
    folder.mkdir()
    (folder / "video.latents.safetensors").write_bytes(b"damaged")
    other = tmp_path / "other.mp4"

    def breaks(*_):
        raise OSError

    begin = pipe.finisher.vae.frames
    try:
        pipe.finisher.vae.frames = breaks
        with pytest.raises(RuntimeError, match="latents are saved"):
            pipe("a dog", other, seed=1, **SIZE)
    finally:
        pipe.finisher.vae.frames = begin
    left = tmp_path / "other.latents.safetensors"
    assert load_unfinished(left)[0].record.prompt == "a dog"
    shutil.move(left, folder / "video-2.latents.safetensors")
    maker.make(order(tmp_path))
    finish(maker)
    assert (folder / "video.mp4").read_bytes() == wanted


def test_a_pipeline_that_is_broken_is_not_used_again(pipe, tmp_path, monkeypatch):
    def breaks(*_args, **_settings):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    said = []
    maker = Maker(pipe, said.append)
    monkeypatch.setattr(pipe, "begin", breaks)
    with pytest.raises(maker_module.BrokenError):
        maker.make(order(tmp_path))
    assert isinstance(said[-1], Failed)
    maker.close()


def test_two_jobs_overlap(maker, said, tmp_path, monkeypatch):
    """The second is sampled while the first one's file waits for its encoder."""
    import threading

    gate, end = threading.Event(), VideoWriter.finish
    monkeypatch.setattr(VideoWriter, "finish", lambda writer: (gate.wait(LONG), end(writer)))
    maker.make(order(tmp_path))
    second = Make("video_2", ASKED, str(tmp_path / "video_2"))
    maker.make(second)
    assert not [message for message in said if isinstance(message, Done)]
    gate.set()
    until(lambda: len([message for message in said if isinstance(message, Done)]) == 2)
