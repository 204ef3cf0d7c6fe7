"""The page: its fields checked, and driven in a real browser (`pytest -m web`, needs playwright and a Chromium)."""

import importlib.util
import os
import re
import shutil
import sys

import pytest

from kandinsky.cli.main import main
from kandinsky.cli.web import make_page, make_video


def test_without_gradio(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["web", "--device", "cpu"]) == 2
    assert "pip install 'kandinsky4[web]'" in capsys.readouterr().err


def test_progress_and_result(pipe, tmp_path):
    seen = []
    path, said = make_video(
        pipe, tmp_path, ("a cat", "96x64", 1, " 9223372036854775807 "), lambda *at, desc: seen.append((*at, desc))
    )
    assert seen == [
        (0, "reading the prompt"), (0.2, "step 1 of 4"), (0.4, "step 2 of 4"), (0.6, "step 3 of 4"), (0.8, "decoding")
    ]  # fmt: skip
    assert "9 frames of 96x64 at 8 fps, seed 9223372036854775807" in said
    assert [str(file) for file in tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((" ", "64x64", 1, ""), "prompt is empty"),
        (("a cat", "64x64", 1, "-1"), "seed='-1'"),
        (("a cat", "64x64", 99, ""), "time_length=99"),
        (("a cat", "65x64", 1, ""), "width=65"),
    ],
)
def test_wrong_field(pipe, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        make_video(pipe, tmp_path, fields, lambda *_, **__: None)


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
