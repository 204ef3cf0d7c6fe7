"""Files of clients: what is kept under which name, and what is refused before anything looks inside."""

import base64
import io
import os
from dataclasses import replace

import pytest
from PIL import Image
from serving_kit import ASKED
from starlette.datastructures import UploadFile

from kandinsky.serving.answers import Refusal
from kandinsky.serving.store import Store
from kandinsky.serving.uploads import staged


def picture(kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return file.getvalue()


def sent(content, name="../../x.png"):
    return UploadFile(io.BytesIO(content), filename=name)


MP4 = b"\0\0\0\x20ftypisom"


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as store:
        yield store


def nobody(job_id):
    raise AssertionError(job_id)


@pytest.mark.parametrize(
    ("name", "content", "file"),
    [
        ("image", picture(), "given_image.png"),
        ("last_image", picture("JPEG"), "given_last_image.jpg"),
        ("image", picture("WEBP"), "given_image.webp"),
        ("video", MP4, "given_video.mp4"),
        ("video", b"\x1a\x45\xdf\xa3 webm", "given_video.mkv"),
        ("mask", picture(), "given_mask.png"),
        ("mask", MP4, "given_mask.mp4"),
    ],
)
def test_a_file_gets_a_name_of_ours(store, name, content, file):
    with staged(store, {name: sent(content)}, nobody) as stage:
        assert stage.names == {name: file}
        assert (stage.folder / file).read_bytes() == content
        assert stage.folder.parent == store.files
        other = stage.marks
    assert not stage.folder.exists()
    with staged(store, {name: sent(content, "another name")}, nobody) as stage:
        assert stage.marks == other


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("image", MP4),
        ("image", b""),
        ("image", b"%!PS-Adobe-3.0 EPSF"),
        ("video", picture()),
        ("video", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        ("video", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        ("mask", b"<svg></svg>"),
    ],
)
def test_what_is_refused_by_its_first_bytes(store, name, content):
    with pytest.raises(Refusal, match="the file is none of") as caught, staged(store, {name: sent(content)}, nobody):
        raise AssertionError
    assert caught.value.param == name
    assert list(store.files.iterdir()) == []


def test_data_addresses(store):
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    with staged(store, {"image": {"image_url": url}}, nobody) as stage:
        assert (stage.folder / "given_image.png").read_bytes() == picture()
    for value in (
        url,
        {"image_url": "http://127.0.0.1/secret.png"},
        {"image_url": "file:///etc/passwd"},
        {"image_url": "data:image/png;base64,?"},
        {"image_url": "data:image/png;base64,\N{LATIN SMALL LETTER E WITH ACUTE}"},
        {"image_url": "data:image/png;base64,\ud800"},
        {"image_url": url, "more": 1},
        {"file_id": "file_1"},
        7,
    ):
        with pytest.raises(Refusal) as caught, staged(store, {"image": value}, nobody):
            raise AssertionError
        assert (caught.value.status, caught.value.param) == (400, "image")


def made(store, ending=".mp4", **asked):
    """A completed job."""
    (job,) = store.create([replace(ASKED, ending=ending, **asked)], owner="me")
    store.claim()
    store.folder_of(job.id).mkdir(exist_ok=True)
    store.file_of(job).write_bytes(MP4)
    store.finish(job.id, "completed")
    return store.get(job.id)


def test_the_file_of_a_job(store):
    job = made(store)
    with staged(store, {"video": {"id": job.id}}, store.get) as stage:
        assert (stage.names, stage.source) == ({"video": "given_video.mp4"}, job.id)
        store.delete(job.id)
        assert (stage.folder / "given_video.mp4").read_bytes() == MP4


def test_a_folder_that_somebody_removed_is_made_again(store):
    store.files.rmdir()
    with staged(store, {"image": sent(picture())}, nobody) as stage:
        assert (stage.folder / "given_image.png").is_file()


def test_a_job_without_a_video(store):
    (waits,) = store.create([ASKED], owner="me")
    webp, lost = made(store, ".webp"), made(store)
    store.file_of(lost).unlink()
    image = made(store, ".png", time_length=0)
    with (
        pytest.raises(Refusal, match="allowed is a completed image") as caught,
        staged(store, {"last_image": {"id": lost.id}}, store.get),
    ):
        raise AssertionError
    assert caught.value.param == "last_image"
    with (
        pytest.raises(Refusal, match="allowed is a completed video"),
        staged(store, {"video": {"id": image.id}}, store.get),
    ):
        raise AssertionError
    for job, said in ((waits, "allowed is a completed video"), (webp, "animated webp"), (lost, "no video")):
        with pytest.raises(Refusal, match=said), staged(store, {"video": {"id": job.id}}, store.get):
            raise AssertionError


def test_inputs_once_more(store):
    with staged(store, {"image": sent(picture())}, nobody) as stage:
        first = made(store, inputs=stage.names)
        os.link(stage.folder / "given_image.png", store.folder_of(first.id) / "given_image.png")
        marks = stage.marks
    with staged(store, {}, nobody, again=first) as stage:
        assert (stage.names, stage.marks) == ({"image": "given_image.png"}, marks)
        assert (stage.folder / "given_image.png").read_bytes() == picture()


def test_an_image_that_was_made_here_is_a_picture(store):
    for ending in (".png", ".jpeg", ".webp"):
        image = made(store, ending, time_length=0)
        with staged(store, {"image": {"id": image.id}, "mask": {"id": image.id}}, store.get) as stage:
            assert stage.names == {"image": f"given_image{ending}", "mask": f"given_mask{ending}"}
            assert stage.source is None  # the protocol's word is for a video


def test_inputs_of_a_job_that_was_deleted_meanwhile(store):
    job = made(store, inputs={"video": "given_video.mp4"})
    with pytest.raises(Refusal, match="no video") as caught, staged(store, {}, nobody, again=job):
        raise AssertionError
    assert caught.value.status == 404
    assert [path.name for path in store.files.iterdir()] == [job.id]
