"""Batches: what is made, what is skipped, what a failure or a kill leaves, who makes what."""

import dataclasses
import json
import multiprocessing
import shlex
import threading
from collections import Counter

import fault_batch
import pytest
from fakes import FAILS_AT_THE_END, PassedOn, QuickVae, TextOnly, WatchedDit, changed, ffmpeg_script
from filelock import FileLock
from helpers import LONG, SMALL, fork_server
from PIL import Image

from kandinsky.batch.prompts import make_items, read_prompts
from kandinsky.batch.run import check_folder, run_batch
from kandinsky.config import FLASH_512

SETTINGS = {"seed": 1, "time_length": 0, "width": 64, "height": 64}
PROMPTS = ["a cat", "a dog", "a 'bird'; rm -rf $HOME\n../🐦"]
VIDEO = {"time_length": 1}


@pytest.fixture(scope="module")
def quick(pipe):
    """A pipeline with a VAE that is no network."""
    return changed(pipe, vae=QuickVae())


def items_of(prompts=PROMPTS, **settings):
    return make_items(prompts, {**SETTINGS, **settings}, model_set=SMALL)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines() if line]


def files_in(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("[!.]*.*")) if path.suffix != ".jsonl"}


class Prompts(PassedOn):
    """A text encoder that calls `read(prompt)` before each prompt."""

    def __init__(self, real, read):
        super().__init__(real)
        self._read = read

    def __call__(self, text):
        self._read(text)
        return self._real(text)


def test_equals_single_calls(pipe, tmp_path):
    """Of the real pipeline, with a video among the images."""
    prompts = [PROMPTS[0], {"text": PROMPTS[1], **VIDEO}, PROMPTS[2]]
    folder = tmp_path / "new" / "folder"
    result = run_batch(pipe, items_of(prompts), folder)
    assert (result.made, result.skipped, result.failed) == (3, 0, {})
    assert result.report == folder / "report.jsonl"
    assert result.seconds > 0
    assert list(files_in(folder)) == ["0001.png", "0002.mp4", "0003.png"]
    for number, (name, prompt) in enumerate(zip(files_in(folder), PROMPTS, strict=True)):
        call = {**SETTINGS, "seed": 1 + number, "time_length": int(name.endswith(".mp4"))}
        alone = pipe(prompt, tmp_path / f"alone{name}", **call)
        assert alone.path.read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("model_set", "settings", "message"),
    [
        (FLASH_512, {"width": 512, "height": 512}, r"width=512, height=512: allowed width x height: 64x64, 96x64"),
        (dataclasses.replace(SMALL, fps=4), VIDEO, "made for another model set"),
    ],
)
def test_items_for_another_model_set_are_refused(quick, tmp_path, model_set, settings, message):
    """Before the folder is made: they would be of sizes that the model was not trained for."""
    items = make_items(["a cat"], {**SETTINGS, **settings}, model_set=model_set)
    with pytest.raises(ValueError, match=rf"^0001\..*{message}.*model_set=pipe\.model_set"):
        run_batch(quick, items, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_every_line_has_its_own_settings(quick, tmp_path):
    own = {"text": "a cat", "width": 96, "save_path": "Cat.webp"}
    frames = {"text": "a cat", "save_path": "frames/", **VIDEO}
    assert run_batch(quick, items_of([own, "a dog", frames]), tmp_path).made == 3
    assert Image.open(tmp_path / "Cat.webp").size == (96, 64)
    assert [line["seed"] for line in lines_of(tmp_path) if line["status"] == "done"] == [1, 2, 3]
    assert len(list((tmp_path / "frames").iterdir())) == 9
    assert list(files_in(tmp_path)) == ["0002.png", "Cat.webp"]


def test_what_is_done_is_skipped(quick, tmp_path):
    run_batch(quick, items_of(), tmp_path)
    before = files_in(tmp_path)
    again = run_batch(quick, items_of([*PROMPTS, "a fish"]), tmp_path)
    assert (again.made, again.skipped) == (1, 3)
    assert {**files_in(tmp_path), **before} == files_in(tmp_path)
    (tmp_path / "0001.png").unlink()
    result = run_batch(quick, items_of([PROMPTS[0], "another dog", PROMPTS[2], "a fish"]), tmp_path)
    assert (result.made, result.skipped) == (2, 2)  # one is gone, one was asked for differently


def test_drawn_seeds_are_kept(quick, tmp_path):
    run_batch(quick, items_of(seed=None), tmp_path)
    assert run_batch(quick, items_of(seed=None), tmp_path).skipped == 3
    assert len({line["seed"] for line in lines_of(tmp_path)}) == 3


def test_failures_do_not_stop_the_rest(quick, tmp_path, monkeypatch):
    def refuse(prompt):
        if prompt == "a dog":
            raise RuntimeError("cannot read")

    folder = tmp_path / "videos"
    items = items_of([*PROMPTS, "a fish"], **VIDEO)
    script = f'case "$*" in *0003*) {FAILS_AT_THE_END};; esac; exec "$real" "$@"'
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, script))
        result = run_batch(changed(quick, text_encoder=Prompts(quick.text_encoder, refuse)), items, folder)
    latents = folder / "0003.latents.safetensors"
    assert list(result.failed) == ["0002.mp4", "0003.mp4"]
    assert result.failed["0002.mp4"] == "RuntimeError: cannot read"
    assert f"No space left on device); its latents are saved in {latents}; to finish it: k" in result.failed["0003.mp4"]
    assert list(files_in(folder)) == ["0001.mp4", "0003.latents.safetensors", "0004.mp4"]
    assert not list(folder.glob("*.partial*"))
    quick.decode_to(latents)
    result = run_batch(quick, items, folder)
    assert (result.made, result.skipped) == (1, 3)  # the one that was finished by hand is done
    alone = quick(PROMPTS[2], tmp_path / "alone.mp4", **{**SETTINGS, **VIDEO, "seed": 3})
    assert alone.path.read_bytes() == (folder / "0003.mp4").read_bytes()


def test_a_file_is_finished_while_the_next_video_is_sampled(quick, tmp_path, monkeypatch):
    """The encoder of the first one does not end before the second one is being sampled."""
    begun = tmp_path / "begun"
    there = f"[ -e {shlex.quote(str(begun))} ]"
    wait = f"for _ in $(seq 3000); do {there} && break; sleep 0.02; done; {there} || exit 1"
    script = f'case "$*" in *0001*) {wait};; esac; exec "$real" "$@"'
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, script))
    steps = []

    def before(index):
        steps.append(index)
        if len(steps) == 5:
            begun.touch()

    watched = changed(quick, dit=WatchedDit(quick.dit, before))
    assert run_batch(watched, items_of(PROMPTS[:2], **VIDEO), tmp_path / "videos").made == 2


def test_the_next_prompt_is_read_before_the_video_is_sampled(quick, tmp_path):
    read, waited = threading.Event(), []

    def before(_index):
        waited.append(read.wait(LONG))

    watched = changed(
        quick,
        text_encoder=Prompts(quick.text_encoder, lambda prompt: read.set() if prompt == "a dog" else None),
        dit=WatchedDit(quick.dit, before),
    )
    assert run_batch(watched, items_of(PROMPTS[:2]), tmp_path).made == 2
    assert waited == [True] * 8


def test_interrupt_finishes_the_last_file(quick, tmp_path):
    steps = []

    def before(_index):
        steps.append(1)
        if len(steps) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(changed(quick, dit=WatchedDit(quick.dit, before)), items_of(), tmp_path)
    assert list(files_in(tmp_path)) == ["0001.png"]
    assert Counter(line["status"] for line in lines_of(tmp_path)) == {"started": 2, "done": 1}


def test_a_report_that_cannot_be_written_ends_the_batch(quick, tmp_path):
    """Nobody would know what was made."""
    (tmp_path / "report.jsonl").mkdir()
    nobody = changed(quick, dit=WatchedDit(quick.dit, lambda _: pytest.fail("sampled")))
    with pytest.raises(OSError, match=r"report\.jsonl"):
        run_batch(nobody, items_of(), tmp_path)


def test_a_target_that_appeared_meanwhile_is_a_failure(quick, tmp_path):
    """Its item is not sampled; the others are made."""
    items = items_of([{"text": "a cat", "save_path": "frames/", **VIDEO}, "a dog"])
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "mine").touch()
    result = run_batch(quick, items, tmp_path)
    assert result.made == 1
    assert "is not empty; name a new folder" in result.failed["frames/"]
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["mine"]


def test_one_batch_in_a_folder(quick, tmp_path):
    nobody = changed(quick, dit=None, text_encoder=TextOnly(None, lambda _: pytest.fail("encoded")))
    with FileLock(tmp_path / ".batch.lock"), pytest.raises(ValueError, match="another batch is writing in this folder"):
        run_batch(nobody, items_of(), tmp_path)
    assert files_in(tmp_path) == {}


def test_folders_that_cannot_be_written(quick, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder, message in (
        (tmp_path / "file", r"file': must be a folder that is there or can be made"),
        ("/proc/videos", r"save_path='/proc/videos': must be a folder"),
        (3, "folder=3: allowed is a path of text"),
    ):
        with pytest.raises(ValueError, match=message):
            run_batch(quick, items_of(), folder)
    program = ffmpeg_script(tmp_path, "exit 1", listing="echo ' V..... libx264 H.264'")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    check_folder(tmp_path / "videos", items_of(**VIDEO))
    with pytest.raises(ValueError, match=r"codec='hevc': .* has no libx265"):
        check_folder(tmp_path / "videos", items_of(**VIDEO, codec="hevc"))


def test_a_result_is_frozen(quick, tmp_path):
    result = run_batch(quick, [], tmp_path)
    assert (result.made, result.skipped, result.failed) == (0, 0, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.made = 1


@pytest.mark.slow
def test_killed_and_restarted(quick, small_weights, tmp_path):
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "videos"
    prompts.write_text("".join(f"prompt {number}\n" for number in range(5)))
    ours, theirs = multiprocessing.Pipe()
    process = fork_server().Process(target=fault_batch.make_batch, args=(prompts, folder, small_weights, theirs))
    process.start()
    assert ours.poll(120)
    process.kill()
    process.join()
    before = files_in(folder)
    assert list(before) == ["0001.png", "0002.png"]
    items = read_prompts(prompts, fault_batch.SETTINGS, model_set=SMALL)
    result = run_batch(quick, items, folder)
    assert (result.made, result.skipped, result.failed) == (3, 2, {})
    after = files_in(folder)
    assert list(after) == [f"000{number}.png" for number in range(1, 6)]
    assert {name: after[name] for name in before} == before
    done = Counter(line["number"] for line in lines_of(folder) if line["status"] == "done")
    assert done == Counter(range(1, 6))
    assert {path.name for path in folder.glob(".*")} <= {".batch.lock"}
