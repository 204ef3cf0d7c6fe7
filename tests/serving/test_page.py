"""The page in a real browser (`pytest -m web`, needs playwright and a Chromium)."""

import contextlib
import io
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import SMALL
from PIL import Image
from serving_kit import ASKED, Hands, ThreadWorker, posted, served, until
from video_helpers import write_video

from kandinsky.serving.keys import EVERYBODY
from kandinsky.serving.messages import Step
from kandinsky.serving.options import Options
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store

pytestmark = pytest.mark.web
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SECONDS = re.compile(r"^\s*Seconds")  # no others, as of an overlap
KINDS = ("From text", "From a picture", "Change a video", "Go on from a video", "Images")
FIELDS = {
    "From text": ["Prompt", "Size", "Seconds", "Frames a second", "Seed"],
    "From a picture": [
        "Prompt", "First frame", "Last frame", "Mask", "Size", "If the shape differs", "Seconds", "Frames a second",
        "Seed",
    ],
    "Change a video": [
        "Prompt", "Video", "Mask", "Strength", "Size", "If the shape differs", "Seconds (empty: all)",
        "Frames a second", "Seed",
    ],
    "Go on from a video": [
        "Prompt", "Video", "Size", "If the shape differs", "Seconds more", "Overlap in seconds", "Seed",
    ],
    "Images": ["Prompt", "Size", "Number", "Seed"],
}  # fmt: skip
"""What is asked for each kind, in the order in which the keyboard comes to it."""


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("there is no Chromium")
        chromium = driver.chromium.launch(executable_path=program, args=[*QUIET])
        yield chromium
        chromium.close()


@pytest.fixture
def tabs(chromium):
    """Opens pages of one browser; no script of theirs may have failed."""
    said, opened = [], []

    def tab(address, **settings):
        page = chromium.new_page(**{"viewport": {"width": 1280, "height": 900}, **settings})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.get_by_label("Size").locator("option", has_text="64x64").wait_for(state="attached")
        opened.append(page)
        return page

    yield tab
    for page in opened:
        page.close()
    assert said == []


@contextlib.contextmanager
def making(pipe, folder):
    """A server with a pipeline of tiny weights."""
    with Store(folder) as store:
        scheduler = Scheduler(store, {"w": lambda name, report: ThreadWorker(pipe, name, report)})
        scheduler.start()
        with served(scheduler) as address:
            yield address
        scheduler.drain()
        scheduler.wait_until_gone(20)


def is_playing(place):
    """Whether the first video there runs; asked again and again: the page's policy forbids a function that waits."""
    video = place.locator("video[src]").first
    return until(lambda: video.evaluate("one => !one.paused && one.currentTime > 0.3"))


def picture(name="boat.png", size=(96, 80)):
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(file, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}


def choose(page, kind, prompt=None):
    page.get_by_role("radio", name=kind).check()
    if prompt is not None:
        page.get_by_label("Prompt").fill(prompt)


def make(page, kind="From text"):
    page.get_by_role("button", name="Make images" if kind == "Images" else "Make the video").click()


def card(page, prompt):
    """The newest job with a prompt."""
    return page.get_by_role("listitem").filter(has=page.locator(".prompt", has_text=prompt)).first


def is_made(page, prompt, facts=""):
    found = card(page, prompt)
    found.get_by_text("made in").wait_for()
    assert facts in found.locator(".facts").inner_text()
    return found


def again(page, prompt):
    """A second one of a job that was made: the same but for its seed."""
    first = card(page, prompt).locator(".facts").inner_text()
    card(page, prompt).get_by_role("button", name="Again with another seed").click()
    until(lambda: card(page, prompt).locator(".facts").inner_text() != first, 60)
    second = is_made(page, prompt).locator(".facts").inner_text()
    assert re.sub(r"seed \d+", "", first) == re.sub(r"seed \d+", "", second)


def keep(page, name):
    """A picture of the page, where somebody wants to look at it."""
    if "SCREENSHOT" in os.environ:
        page.screenshot(path=f"{os.environ['SCREENSHOT']}-{name}.png", full_page=True)


def test_make_preview_cancel_and_a_gallery_that_stays(pipe, chromium, tabs, tmp_path):
    for server in (1, 2):
        with making(pipe, tmp_path) as address:
            page = tabs(address)
            (_first if server == 1 else _second)(page)
            if server == 2:
                _routes(chromium, address)
            keep(page, f"text-{server}")


def _first(page):
    page.get_by_label("Prompt").fill("<b>A lighthouse</b> in a storm.")
    page.get_by_label("Seed").fill("9223372036854775807")
    page.get_by_label(SECONDS).fill("30")
    make(page)
    page.locator("img[src^='data:image/jpeg']").first.wait_for()
    page.get_by_label(SECONDS).fill("1")
    make(page)
    page.locator(".said", has_text="waits, next in line").wait_for()
    page.get_by_role("button", name="Cancel").last.click()
    page.locator(".said", has_text="cancelled").wait_for()
    page.locator(".said", has_text="made in").wait_for()
    assert is_playing(page)
    page.get_by_label("Seed").fill("9223372036854775808")
    make(page)
    page.locator(".wrong", has_text="allowed is 0 to 9223372036854775807").wait_for()
    assert page.get_by_label("Seed").get_attribute("aria-invalid") == "true"


def _second(page):
    page.locator(".said", has_text="made in").wait_for()
    assert page.locator(".prompt", has_text="<b>A lighthouse</b> in a storm.").count() == 2  # as written, and no HTML
    assert page.get_by_text("64x64, 1 s, seed 9223372036854775807").count() == 1
    assert is_playing(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".mp4")
    again(page, "lighthouse")
    page.get_by_role("button", name="Delete").first.click()
    page.locator(".said", has_text="made in").nth(1).wait_for(state="detached")


def _routes(browser, address):
    """The page of routes, with nothing from elsewhere."""
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/docs")
    page.get_by_text("/v1/videos/extensions").click()
    page.get_by_text("Video that is gone on with.").wait_for()
    assert all(url.startswith((address, "data:")) for url in asked)
    keep(page, "docs")
    page.close()


class Desk:
    """A page and the worker behind it: what is asked for on the one, the other says it has made."""

    def __init__(self, page, hands, video):
        self.page, self._worker, self._video = page, hands.workers[0], video
        self._taken = 0

    def fill(self, name, value):
        """A field by its name in the body: text, a choice, or a file (None: no more)."""
        field = self.page.locator(f"[name={name}]")
        if field.get_attribute("type") == "file":
            field.set_input_files([] if value is None else value)
        elif field.evaluate("one => one.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)

    def make(self, prompt):
        """What the worker is told, once the page shows that it is made."""
        self.fill("prompt", prompt)
        self.page.locator("form button[type=submit]").click()
        asked = self._made(prompt)
        self.page.get_by_role("listitem").first.get_by_role("button", name="Again with another seed").click()
        again = self._made(prompt)
        assert again.seed != asked.seed
        assert replace(again, seed=asked.seed) == asked
        return asked

    def _made(self, prompt):
        asked = until(lambda: self._worker.got[self._taken :])[0].asked
        self._taken += 1
        self._worker.finish(content=self._video if asked.time_length else picture()["buffer"])
        self.page.locator(".facts", has_text=f"seed {asked.seed}").wait_for()  # the worker may be quicker than the page
        is_made(self.page, prompt, f"seed {asked.seed}")
        return asked

    def refused(self, said):
        self.page.locator("form button[type=submit]").click()
        self.page.locator(".wrong", has_text=said).wait_for()


@pytest.fixture
def desk(tabs, hands, address, tmp_path):
    write_video(tmp_path / "two.mp4", frames=17)
    return Desk(tabs(address), hands, (tmp_path / "two.mp4").read_bytes())


def test_from_pictures(desk):
    choose(desk.page, "From a picture", "The boat leaves.")
    desk.fill("seconds", "1")
    desk.refused("Choose a picture")
    desk.fill("image", picture("<img src=x onerror=alert(1)>.png"))
    asked = desk.make("The boat leaves.")
    assert (asked.inputs, asked.fit, asked.width) == ({"image": "given_image.png"}, "cover", 64)
    for name, value in {
        "last_image": picture(), "mask": picture("mask.png"), "fit": "contain", "interpolate": "2", "size": "96x64",
    }.items():  # fmt: skip
        desk.fill(name, value)
    asked = desk.make("From one to the other.")
    assert set(asked.inputs) == {"image", "last_image", "mask"}
    assert (asked.fit, asked.interpolate, asked.width) == ("contain", 2, 96)
    keep(desk.page, "picture")


def test_images_and_a_video_that_begins_from_one(desk):
    choose(desk.page, "Images")
    asked = desk.make("A boat.")
    assert (asked.time_length, asked.ending, asked.inputs) == (0, ".png", {})
    image = card(desk.page, "A boat.")
    assert until(lambda: image.locator("img").evaluate("one => one.naturalWidth")) == 96
    with desk.page.expect_download() as download:
        image.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".png")
    keep(desk.page, "image")
    image.get_by_role("button", name="Begin from this").click()
    assert desk.page.get_by_label("Prompt").evaluate("one => one === document.activeElement && one.value") == "A boat."
    desk.fill("seconds", "1")
    assert desk.make("The boat leaves.").inputs == {"image": "given_image.png"}
    desk.page.get_by_role("button", name="Choose a file instead").click()
    desk.refused("Choose a picture")


def test_from_videos(desk, tmp_path):
    choose(desk.page, "Change a video", "A dog.")
    desk.refused("video is missing")
    desk.fill("video", tmp_path / "two.mp4")
    desk.fill("strength", "0.25")
    asked = desk.make("A dog.")
    assert (asked.inputs, asked.strength, asked.time_length) == ({"video": "given_video.mp4"}, 0.25, 2)
    desk.fill("strength", "")
    desk.fill("mask", picture(size=(64, 64)))
    asked = desk.make("A half of a dog.")
    assert (set(asked.inputs), asked.strength) == ({"video", "mask"}, None)
    keep(desk.page, "change")
    card(desk.page, "A dog.").get_by_role("button", name="Change this").click()
    desk.fill("mask", None)
    asked = desk.make("Half a dog.")
    assert (asked.strength, asked.source is None) == (0.5, False)


def test_going_on_from_a_video(desk):
    choose(desk.page, "From text")
    desk.fill("seconds", "2")
    desk.make("A cat.")
    card(desk.page, "A cat.").get_by_role("button", name="Go on from this").click()
    desk.fill("seconds", "1")
    desk.fill("overlap", "3")
    desk.refused("overlap=3 needs")
    instead = desk.page.get_by_role("button", name="Choose a file instead")  # in the place of the field for a file
    assert instead.evaluate("one => one === document.activeElement")
    keep(desk.page, "extend")
    desk.fill("overlap", "1")
    asked = desk.make("The cat goes on.")
    assert (asked.time_length, asked.overlap, asked.stitched, set(asked.inputs)) == (1, 1, 3, {"video"})
    assert "64x64, 3 s" in card(desk.page, "The cat goes on.").locator(".facts").inner_text()


def test_what_a_field_may_not_have_is_said_there(hands, tabs, tmp_path):
    with served(hands.scheduler, Options(model_set=SMALL, max_body=2**20)) as address:
        page = tabs(address)
        choose(page, "From a picture", "A cat.")
        for name, content, said in (
            ("empty.png", b"", "image: the file is none of png, jpg, webp"),
            ("song.mp3", b"ID3\3" + bytes(100), "image: the file is none of png, jpg, webp"),
            ("large.png", bytes(100 * 2**20), "100.0 MB: all files together may have 1.0 MB."),
        ):
            (tmp_path / name).write_bytes(content)
            page.get_by_label("First frame").set_input_files(tmp_path / name)
            make(page)
            page.locator(".wrong", has_text=said).wait_for()
            first = page.get_by_label("First frame")
            assert first.evaluate("one => one === document.activeElement && one.ariaInvalid === 'true'")
        keep(page, "wrong")
        choose(page, "From text")
        assert page.locator(".wrong").count() == 0
        assert page.get_by_role("listitem").count() == 0


def test_only_fields_that_belong_to_a_choice_are_there(tabs, hands):
    loras = {"seed": 1.0, "striped": 0.5}  # one is called as a field is
    with served(hands.scheduler, Options(model_set=SMALL, loras=loras)) as address:
        for scheme in ("light", "dark"):
            for width in (1280, 375):
                page = tabs(address, viewport={"width": width, "height": 800}, color_scheme=scheme)
                for kind in KINDS:
                    choose(page, kind)
                    assert labels(page) == [*FIELDS[kind][:-1], *loras, "Seed"], kind
                    assert page.evaluate("document.documentElement.scrollWidth") <= width
                    keep(page, f"{scheme}-{width}-{kind.split()[0]}")
        page.get_by_label("Prompt").fill("With stripes.")
        page.get_by_label("striped").fill("-0.25")
        make(page, "Images")
        assert until(lambda: hands.workers[0].got)[0].asked.loras == {"seed": 1.0, "striped": -0.25}
        card(page, "With stripes.").get_by_text("seed 1, striped -0.25").wait_for()
        hands.workers[0].finish(content=picture()["buffer"])
        card(page, "With stripes.").get_by_role("button", name="Again").click()
        assert until(lambda: hands.workers[0].got[1:])[0].asked.loras == {"seed": 1.0, "striped": -0.25}


def labels(page):
    """Of the fields that are to be seen, in the keyboard's order."""
    page.get_by_role("radio", checked=True).focus()
    found = []
    while True:
        page.keyboard.press("Tab")
        label = page.evaluate("document.activeElement.labels?.[0]?.childNodes[0].textContent.trim()")
        label = label or page.evaluate("document.activeElement.labels?.[0]?.querySelector('span')?.textContent")
        if not label:
            return found
        if label not in found:  # a field for files has a button in it
            found.append(label)


def test_what_other_tabs_do_is_seen(tabs, hands, client, address):
    first, second = tabs(address), tabs(address)
    choose(first, "From text", "Of the first tab.")
    make(first)
    card(second, "Of the first tab.").wait_for()
    hands.workers[0].finish()
    for page in (first, second):
        is_made(page, "Of the first tab.")
    card(first, "Of the first tab.").get_by_role("button", name="Go on from this").click()
    card(second, "Of the first tab.").get_by_role("button", name="Delete").click()
    assert second.get_by_role("heading", name="Videos and images").evaluate("one => one === document.activeElement")
    card(first, "Of the first tab.").wait_for(state="detached")
    assert first.get_by_role("button", name="Choose a file instead").count() == 0
    make(first)
    first.locator(".wrong", has_text="video is missing").wait_for()
    job = posted(client, prompt="Deleted just now.")
    card(first, "Deleted just now.").wait_for()
    first.route("**/v1/videos?*", lambda route: route.abort())  # the list is not looked at before the click
    hands.store.delete(job["id"])
    card(first, "Deleted just now.").get_by_role("button", name="Cancel").click()
    card(first, "Deleted just now.").wait_for(state="detached")


def test_what_is_made_is_shown_while_it_is_made(tabs, hands, address):
    page, worker = tabs(address), hands.workers[0]
    page.get_by_label("Prompt").fill("A lighthouse.")
    for end in ("made in", "cancelled"):
        taken = len(worker.got)
        make(page)
        job_id = until(lambda: worker.got[taken:])[0].job_id  # noqa: B023
        jpeg = io.BytesIO()
        Image.new("RGB", (64, 64), "red").save(jpeg, "JPEG")
        until(lambda: hands.scheduler.live.is_watched(job_id))  # noqa: B023
        worker.report(worker, Step(job_id, 1, 4, jpeg.getvalue()))
        newest = page.get_by_role("listitem").first
        newest.locator(".said", has_text="step 1 of 4").wait_for()
        newest.get_by_alt_text("the middle frame so far").wait_for()
        assert newest.locator("img").get_attribute("src").startswith("data:image/jpeg")
        if end == "made in":
            worker.finish()
        else:
            newest.get_by_role("button", name="Cancel").click()
        newest.locator(".said", has_text=end).wait_for()
        assert end in page.locator("#news").inner_text()  # what is read aloud
        newest.locator("img").wait_for(state="hidden")  # for a video once the file is there
        assert newest.get_by_role("button", name="Cancel").is_hidden()


def test_many_that_wait_do_not_hold_the_page_up(tabs, hands, client, address):
    """A browser has six connections to a server: a stream for each job would take them all."""
    pages = [tabs(address) for _ in range(2)]
    jobs = [posted(client, prompt=f"job {number}") for number in range(12)]
    for page in pages:
        card(page, "job 11").get_by_text("waits, 10 before it").wait_for()
    card(pages[1], "job 11").get_by_role("button", name="Cancel").click()
    card(pages[1], "job 11").locator(".said", has_text="cancelled").wait_for(timeout=5000)
    for number in range(3):
        until(lambda: len(hands.workers[0].got) > number)  # noqa: B023
        hands.workers[0].finish()
    card(pages[0], "job 2").locator(".said", has_text="made in").wait_for()
    assert pages[0].get_by_role("listitem").count() == len(jobs)


def test_a_restart_while_the_page_is_open(tabs, tmp_path):
    page, port = None, 0
    for prompt in ("Before the restart.", "After the restart."):
        with Store(tmp_path) as store:
            hands = Hands(store).start()
            hands.workers[0].ready()
            with served(hands.scheduler, port=port) as address:
                page, port = page or tabs(address), int(address.rpartition(":")[2])
                page.get_by_role("status").get_by_text("ready").wait_for()
                page.get_by_label("Prompt").fill(prompt)
                make(page)
                until(lambda: hands.workers[0].got)  # noqa: B023
                hands.workers[0].finish()
                is_made(page, prompt)
            hands.scheduler.kill()
        page.get_by_role("status").get_by_text("the server does not answer").wait_for()
        make(page)
        page.get_by_role("alert").get_by_text("The server does not answer.").wait_for()
    assert page.locator(".said", has_text="made in").count() == 2


def test_a_gallery_of_five_hundred(tabs, tmp_path, silent):
    with Store(tmp_path) as store:
        jobs = store.create(
            [replace(ASKED, text=f"job {number}", seed=number) for number in range(500)], owner=EVERYBODY
        )
        for job in jobs:
            store.claim()
            store.folder_of(job.id).mkdir()
            os.link(silent, store.file_of(job))
            store.finish(job.id, "completed", timings={"total": 1.0})
        hands = Hands(store).start()
        with served(hands.scheduler) as address:
            page = tabs(address)
            card(page, "job 499").wait_for()
            assert page.get_by_role("listitem").count() == 24
            store.delete(jobs[-24].id)  # after which the older ones come
            more = page.get_by_role("button", name="Older ones")
            while more.is_visible():
                count = page.get_by_role("listitem").count()
                more.dispatch_event("click")
                until(lambda: page.get_by_role("listitem").count() > count or not more.is_visible())  # noqa: B023
            assert page.get_by_role("listitem").count() == 499
            for place in ("job 0", "job 250", "job 499"):
                found = card(page, re.compile(f"^{place}$"))
                found.scroll_into_view_if_needed()
                assert is_playing(found)
                until(lambda: page.locator("video[src]").count() < 40)  # of 499
            keep(page, "many")
        hands.scheduler.kill()
