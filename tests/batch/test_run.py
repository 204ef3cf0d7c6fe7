"""Batches: what is made, what is skipped, what a failure or a kill leaves, who makes what."""

import dataclasses
import json
import threading
import time
from collections import Counter

import pytest
import torch
from filelock import FileLock
from helpers import SMALL, fork_server, own_weights
from PIL import Image

from kandinsky.batch.prompts import make_items, read_prompts
from kandinsky.batch.run import run_batch
from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.video import VideoWriter
from kandinsky.pipeline import Kandinsky4T2VPipeline

SETTINGS = {"seed": 1, "time_length": 1, "width": 64, "height": 64}
PROMPTS = ["a cat", "a dog", "a 'bird'; rm -rf $HOME\n../🐦"]


def items_of(prompts=PROMPTS, **settings):
    return make_items(prompts, {**SETTINGS, **settings}, model_set=SMALL)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines() if line]


def videos_in(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("[!.]*.mp4"))}


def test_equals_single_calls(pipe, tmp_path):
    result = run_batch(pipe, items_of(), tmp_path / "new" / "folder")
    assert (result.made, result.skipped, result.failed) == (3, 0, {})
    names = list(videos_in(tmp_path / "new" / "folder"))
    assert names == ["0001.mp4", "0002.mp4", "0003.mp4"]
    for number, (name, prompt) in enumerate(zip(names, PROMPTS, strict=True)):
        alone = pipe(prompt, tmp_path / "alone.mp4", **{**SETTINGS, "seed": 1 + number})
        assert alone.path.read_bytes() == (tmp_path / "new" / "folder" / name).read_bytes()


def test_images_and_other_settings(pipe, tmp_path):
    image = {"text": "a cat", "time_length": 0, "width": 96, "save_path": "Cat.webp"}
    assert run_batch(pipe, items_of([image, "a dog"]), tmp_path).made == 2
    assert Image.open(tmp_path / "Cat.webp").size == (96, 64)
    assert [line["seed"] for line in lines_of(tmp_path) if line["status"] == "done"] == [1, 2]
    assert list(videos_in(tmp_path)) == ["0002.mp4"]


def test_what_is_done_is_skipped(pipe, tmp_path):
    run_batch(pipe, items_of(), tmp_path)
    before = videos_in(tmp_path)
    assert run_batch(pipe, items_of([*PROMPTS, "a fish"]), tmp_path).skipped == 3
    assert {**videos_in(tmp_path), **before} == videos_in(tmp_path)
    (tmp_path / "0001.mp4").unlink()
    result = run_batch(pipe, items_of([PROMPTS[0], "another dog", PROMPTS[2], "a fish"]), tmp_path)
    assert (result.made, result.skipped) == (2, 2)  # one is gone, one was asked for differently


def test_drawn_seeds_are_kept(pipe, tmp_path):
    run_batch(pipe, items_of(seed=None), tmp_path)
    assert run_batch(pipe, items_of(seed=None), tmp_path).skipped == 3
    assert len({line["seed"] for line in lines_of(tmp_path)}) == 3


def test_failures_do_not_stop_the_rest(pipe, tmp_path, monkeypatch):
    encoder, finish = pipe.text_encoder, VideoWriter.finish

    class Encoder:
        device = encoder.device

        def __call__(self, prompt):
            if prompt == "a dog":
                raise RuntimeError("cannot read")
            return encoder(prompt)

    def fail(writer):
        if writer.path.name == "0003.mp4":
            raise OSError("disk full")
        finish(writer)

    disturbed = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, text_encoder=Encoder()))
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "finish", fail)
        result = run_batch(disturbed, items_of([*PROMPTS, "a fish"]), tmp_path)
    latents = tmp_path / "0003.latents.safetensors"
    assert list(result.failed) == ["0002.mp4", "0003.mp4"]
    assert result.failed["0002.mp4"] == "RuntimeError: cannot read"
    assert f"(disk full); its latents are saved in {latents}; to finish it: kandinsky" in result.failed["0003.mp4"]
    assert list(videos_in(tmp_path)) == ["0001.mp4", "0004.mp4"]
    assert not list(tmp_path.glob("*.partial*"))
    pipe.decode_to(latents)
    result = run_batch(pipe, items_of([*PROMPTS, "a fish"]), tmp_path)
    assert (result.made, result.skipped) == (1, 3)  # the one that was finished by hand is done
    alone = pipe(PROMPTS[2], tmp_path / "alone.mp4", **{**SETTINGS, "seed": 3})
    assert alone.path.read_bytes() == (tmp_path / "0003.mp4").read_bytes()


def test_a_file_is_finished_while_the_next_video_is_sampled(pipe, tmp_path, monkeypatch):
    finish, sample, next_one = VideoWriter.finish, pipe.sample, threading.Event()

    def slow(writer):
        if writer.path.name == "0001.mp4":
            assert next_one.wait(20), "the next video waits for the file of this one"
        finish(writer)

    def watched(text_embed, shape, *, seed, watch):
        if seed == 2:
            next_one.set()
        return sample(text_embed, shape, seed=seed, watch=watch)

    monkeypatch.setattr(VideoWriter, "finish", slow)
    monkeypatch.setattr(pipe, "sample", watched)
    assert run_batch(pipe, items_of(), tmp_path).failed == {}


def test_the_next_prompt_is_read_before_the_video_is_sampled(pipe, tmp_path, monkeypatch):
    encoder, sample, read = pipe.text_encoder, pipe.sample, threading.Event()

    class Encoder:
        device = encoder.device

        def __call__(self, prompt):
            if prompt == "a dog":
                read.set()
            return encoder(prompt)

    def watched(text_embed, shape, *, seed, watch):
        assert read.wait(20), "the next prompt waits for this video"
        return sample(text_embed, shape, seed=seed, watch=watch)

    reading = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, text_encoder=Encoder()))
    monkeypatch.setattr(reading, "sample", watched)
    assert run_batch(reading, items_of(), tmp_path).failed == {}


def test_interrupt_finishes_the_last_file(pipe, tmp_path, monkeypatch):
    sample, calls = pipe.sample, []

    def interrupted(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(*arguments, **settings)

    monkeypatch.setattr(pipe, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_batch(pipe, items_of(), tmp_path)
    assert list(videos_in(tmp_path)) == ["0001.mp4"]
    assert [line["status"] for line in lines_of(tmp_path)].count("done") == 1


def test_one_batch_in_a_folder(pipe, tmp_path):
    with FileLock(tmp_path / ".batch.lock"), pytest.raises(ValueError, match="another batch is writing in this folder"):
        run_batch(pipe, items_of(), tmp_path)


def make_batch(prompts, folder):
    torch.set_num_threads(1)
    weights = own_weights(folder.with_name("weights"), SMALL)
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    result = run_batch(pipe, read_prompts(prompts, SETTINGS, model_set=SMALL), folder)
    (folder / "result").write_text(f"{result.made} made, {result.skipped} skipped, {result.failed}")


def test_killed_and_restarted(tmp_path):
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "videos"
    prompts.write_text("".join(f"prompt {number}\n" for number in range(10)))
    process = fork_server().Process(target=make_batch, args=(prompts, folder))
    process.start()
    while len(videos_in(folder)) < 4:
        assert process.is_alive()
        time.sleep(0.005)
    process.kill()
    process.join()
    before = videos_in(folder)
    assert 4 <= len(before) < 10
    process = fork_server().Process(target=make_batch, args=(prompts, folder))
    process.start()
    process.join(120)
    assert (folder / "result").read_text() == f"{10 - len(before)} made, {len(before)} skipped, {{}}"
    after = videos_in(folder)
    assert len(after) == 10
    assert {name: after[name] for name in before} == before
    done = Counter(line["number"] for line in lines_of(folder) if line["status"] == "done")
    assert done == Counter(range(1, 11))
    assert not list(folder.glob(".*.partial.*"))
