"""The page in a real browser (`pytest -m web`, needs playwright and a Chromium)."""

import io
import os
import shutil
import time

import pytest
from PIL import Image
from serving_kit import ThreadWorker, served

from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store

pytestmark = pytest.mark.web
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture
def browser():
    with playwright.sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def is_playing(page):
    """Whether a video runs; asked again and again, since the page's policy forbids a function that waits."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if page.evaluate("document.querySelector('video:not([hidden])')?.currentTime > 0.3"):
            return True
        time.sleep(0.1)
    return False


def test_make_preview_cancel_and_a_gallery_that_stays(pipe, browser, tmp_path):
    said = []
    for server in (1, 2):
        with Store(tmp_path) as store:
            scheduler = Scheduler(store, {"w": lambda name, report: ThreadWorker(pipe, name, report)})
            scheduler.start()
            with served(scheduler) as address:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.on("pageerror", lambda error: said.append(str(error)))
                page.goto(address)
                (_first if server == 1 else _second)(page)
                if server == 2:
                    _routes(browser, address)
                page.screenshot(path=os.environ.get("SCREENSHOT", str(tmp_path / "page")) + f"-{server}.png")
                page.close()
            scheduler.drain()
            scheduler.wait_until_gone(20)
    assert said == []


def _first(page):
    make = page.get_by_role("button", name="Make the video")
    page.get_by_label("Prompt").fill("<b>A lighthouse</b> in a storm.")
    page.get_by_label("Seed").fill("9223372036854775807")
    page.get_by_label("Seconds").fill("30")
    make.click()
    page.locator("img[src^='data:image/jpeg']").first.wait_for(timeout=60_000)
    page.get_by_label("Seconds").fill("1")
    make.click()
    page.get_by_text("waits, next in line").wait_for()
    page.get_by_role("button", name="Cancel").last.click()
    page.get_by_text("cancelled").first.wait_for(timeout=60_000)
    page.get_by_text("made in").wait_for(timeout=60_000)
    assert is_playing(page)
    page.get_by_label("Seed").fill("9223372036854775808")
    make.click()
    page.get_by_role("alert").get_by_text("allowed is 0 to 9223372036854775807").wait_for()


def _second(page):
    page.get_by_text("made in").wait_for(timeout=20_000)
    assert page.get_by_text("<b>A lighthouse</b> in a storm.").count() == 2  # as it was written, and no HTML
    assert page.get_by_text("64x64, 1 s, seed 9223372036854775807").count() == 1
    assert is_playing(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".mp4")
    page.get_by_role("button", name="Again with another seed").first.click()
    page.get_by_text("made in").nth(1).wait_for(timeout=60_000)
    page.get_by_role("button", name="Delete").first.click()
    page.get_by_text("made in").nth(1).wait_for(state="detached")
    picture = io.BytesIO()
    Image.linear_gradient("L").save(picture, "PNG")
    page.get_by_label("First frame").set_input_files(
        {"name": "boat.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    page.get_by_label("Prompt").fill("The boat leaves.")
    page.get_by_label("Seconds").fill("1")
    page.get_by_role("button", name="Make the video").click()
    page.locator(".prompt", has_text="The boat leaves.").wait_for(timeout=60_000)
    page.get_by_text("made in").nth(1).wait_for(timeout=60_000)
    page.get_by_role("button", name="Again with another seed").first.click()
    page.get_by_text("made in").nth(2).wait_for(timeout=60_000)


def _routes(browser, address):
    """The page of routes, with nothing from elsewhere."""
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/docs")
    page.get_by_text("/v1/videos/extensions").click()
    page.get_by_text("Video that is gone on with.").wait_for()
    assert all(url.startswith((address, "data:")) for url in asked)
    if "SCREENSHOT" in os.environ:
        page.screenshot(path=f"{os.environ['SCREENSHOT']}-docs.png")
    page.close()
