"""The page: its fields checked, and driven in a real browser (`pytest -m web`, needs playwright and a Chromium)."""

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from contextlib import nullcontext

import pytest
from fakes import QuickVae, changed

from kandinsky.cli.main import main
from kandinsky.cli.web import folder_for_videos, make_page, make_video


@pytest.fixture(scope="module")
def quick(pipe):
    """A pipeline with a VAE that is no network."""
    return changed(pipe, vae=QuickVae())


def silent(*_at, **_settings):
    """Progress that nobody looks at."""


def test_without_gradio(capsys, monkeypatch):
    """Told before weights are looked for."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["web", "--device", "cpu", "--weights", "/nowhere"]) == 2
    assert "pip install 'kandinsky4[web]'" in capsys.readouterr().err


def test_progress_and_result(quick, tmp_path):
    seen = []
    fields = ("a cat", "96x64", 1, " 9223372036854775807 ")
    path, said = make_video(quick, tmp_path, fields, lambda *at, desc: seen.append((*at, desc)))
    assert seen == [
        (0, "reading the prompt"), (0.2, "step 1 of 4"), (0.4, "step 2 of 4"), (0.6, "step 3 of 4"), (0.8, "decoding")
    ]  # fmt: skip
    assert re.fullmatch(r"9 frames of 96x64 at 8 fps, seed 9223372036854775807, made in \d+\.\d s", said)
    assert [str(file) for file in tmp_path.iterdir()] == [path]


def test_no_seed_draws_one(quick, tmp_path):
    said = {make_video(quick, tmp_path, ("a cat", "64x64", 1, " "), silent)[1].split(",")[1] for _ in range(2)}
    assert len(said) == 2
    assert len(list(tmp_path.iterdir())) == 2  # none takes another's place


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((" ", "64x64", 1, ""), "prompt is empty"),
        (("a cat", "64x64", 1, "-1"), "seed='-1'"),
        (("a cat", "64x64", 1, "1.5"), "seed='1.5': must be a whole number, or empty"),
        (("a cat", "64x64", 1, str(2**63)), f"seed={2**63}: allowed is"),
        (("a cat", "64x64", 99, ""), "time_length=99"),
        (("a cat", "65x64", 1, ""), "width=65"),
    ],
)
def test_wrong_field(quick, tmp_path, fields, message):
    nobody = changed(quick, dit=None, text_encoder=None)
    with pytest.raises(ValueError, match=message):
        make_video(nobody, tmp_path, fields, silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_videos_go_and_latents_stay(error, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for kept in ([], ["v.latents.safetensors"]):
        with pytest.raises(error) if error else nullcontext(), folder_for_videos() as folder:
            assert folder.parent == tmp_path
            (folder / "shown").mkdir()
            for name in ("v.mp4", "shown/copy.mp4", *kept):
                (folder / name).touch()
            if error:
                raise error
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == kept


@pytest.fixture
def address(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    (tmp_path / "videos").mkdir()
    page = make_page(pipe, tmp_path / "videos")
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.web
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra 'web' is not installed")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed")
def test_prompt_to_playing_video(address, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.get_by_label("Prompt").fill("A lighthouse in a storm.")
    page.get_by_label("Seed").fill("nonsense")
    page.get_by_role("button", name="Make the video").click()
    page.get_by_text("must be a whole number, or empty").wait_for(timeout=20_000)
    page.get_by_label("Seed").fill("7")
    page.get_by_label("number input for Length in seconds").fill("2")
    page.get_by_role("button", name="Make the video").click()
    page.get_by_text(re.compile("17 frames of 64x64 at 8 fps, seed 7, made in")).wait_for(timeout=60_000)
    page.wait_for_function("document.querySelector('video')?.currentTime > 0.3", timeout=20_000)
    shown = page.evaluate(
        "(({duration, videoWidth, error}) => [duration, videoWidth, error])(document.querySelector('video'))"
    )
    assert shown == [pytest.approx(17 / 8, abs=0.2), 64, None]
    page.screenshot(path=os.environ.get("SCREENSHOT", tmp_path / "page.png"))
