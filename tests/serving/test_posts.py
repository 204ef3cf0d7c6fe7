"""Jobs with pictures and videos, through a real pipeline of tiny weights: the file equals that of a call."""

import contextlib
import io

import openai
import pytest
from helpers import LONG
from PIL import Image
from serving_kit import ThreadWorker, client_of, ended, names_in, posted, served

from kandinsky.output.read_record import read_record
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
SIZE = {"width": 64, "height": 64}


@contextlib.contextmanager
def running(pipe, folder):
    """A store, and clients of a server over it."""
    with Store(folder / "data") as store:
        scheduler = Scheduler(store, {"w": lambda name, report: ThreadWorker(pipe, name, report)})
        scheduler.start()
        with served(scheduler) as address:
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0)
            with client, client_of(address) as plain:
                yield store, client.videos, plain
        scheduler.drain()
        scheduler.wait_until_gone(LONG)


@pytest.fixture(scope="module")
def server(pipe, tmp_path_factory):
    """One server: the process that looks at files is started once."""
    with running(pipe, tmp_path_factory.mktemp("posts")) as server:
        yield server


@pytest.fixture(scope="module")
def picture():
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((96, 80)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def source(server):
    """A completed video of two seconds."""
    _, _, plain = server
    return ended(plain, posted(plain, seconds=2, seed=5)["id"])


def content(plain, video):
    assert video["status"] == "completed", video
    return plain.get(f"/v1/videos/{video['id']}/content").content


def kept(folder, name, data):
    """A file of the name that it has under a server, since that stands in the record."""
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.slow
def test_a_first_frame(server, pipe, picture, tmp_path):
    store, videos, plain = server
    made = videos.create_and_poll(
        prompt="a cat",
        input_reference=("C:\\boat.png", picture),
        seconds="1",
        size="64x64",
        extra_body={"seed": 3, "fit": "cover"},
        poll_interval_ms=50,
    )
    assert (made.status, made.inputs, made.fit) == ("completed", ["image"], "cover")
    call = {"image": kept(tmp_path, "given_image.png", picture), "fit": "cover", "time_length": 1, "seed": 3}
    pipe("a cat", tmp_path / "video.mp4", **call, **SIZE)
    assert videos.download_content(made.id).read() == (tmp_path / "video.mp4").read_bytes()
    assert names_in(store.folder_of(made.id)) == ["given_image.png", "video.mp4"]
    again = posted(plain, seed=4, fit="cover", inputs_of=made.id)
    assert ended(plain, again["id"])["status"] == "completed"
    assert read_record(store.file_of(store.get(again["id"]))).given.inputs.keys() == {"image"}


@pytest.mark.slow
def test_the_size_is_that_of_the_picture_if_nobody_says_another(server, picture):
    _, _, plain = server
    wide = io.BytesIO()
    Image.new("RGB", (96, 64), "blue").save(wide, "JPEG")
    files = {"input_reference": ("x", wide.getvalue())}
    answer = plain.post("/v1/videos", data={"prompt": "a cat", "seconds": "1"}, files=files).json()
    assert answer["size"] == "96x64"
    plain.delete(f"/v1/videos/{answer['id']}")
    files = {"image": picture, "last_image": picture}
    answer = plain.post("/v1/videos", data={"prompt": "a cat", "seconds": "1", "size": "96x64"}, files=files)
    assert answer.status_code == 400
    assert "say how it gets there: fit=" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_an_edit_a_remix_and_an_extension(server, pipe, source, tmp_path):
    store, videos, plain = server
    first = content(plain, source)
    video = kept(tmp_path, "given_video.mp4", first)
    edit = videos.edit(prompt="a dog", video=("v.mp4", first), extra_body={"seed": 6, "strength": "0.25"})
    remix = videos.remix(source["id"], prompt="a dog", extra_body={"seed": 6})
    extend = videos.extend(prompt="a dog", video=first, seconds="1", extra_body={"seed": 7})
    named = plain.post("/v1/videos/extensions", data={"prompt": "a dog", "seconds": "1", "video[id]": source["id"]})
    assert (edit.seconds, edit.size, edit.remixed_from_video_id) == ("2", "64x64", None)
    assert (remix.remixed_from_video_id, remix.strength) == (source["id"], 0.5)
    assert (extend.seconds, extend.overlap) == ("3", 1)
    assert named.json()["remixed_from_video_id"] == source["id"]
    calls = {
        edit.id: lambda path: pipe("a dog", path, video=video, strength=0.25, seed=6),
        remix.id: lambda path: pipe("a dog", path, video=video, strength=0.5, seed=6),
        extend.id: lambda path: pipe.extend(video, "a dog", path, seconds=1, seed=7, **SIZE),
    }
    for number, (job_id, call) in enumerate(calls.items()):
        made = content(plain, ended(plain, job_id))
        path = tmp_path / f"{number}.mp4"
        call(path)
        assert made == path.read_bytes(), number
        assert names_in(store.folder_of(job_id)) == ["given_video.mp4", "video.mp4"]
    assert ended(plain, named.json()["id"])["status"] == "completed"
    told = ended(plain, extend.id)
    body = {"prompt": "a dog", "seconds": told["added_seconds"], "overlap": told["overlap"], "inputs_of": extend.id}
    again = plain.post("/v1/videos/extensions", json={**body, "seed": 7}).json()
    assert (again["seconds"], again["inputs"]) == ("3", ["video"])
    assert content(plain, ended(plain, again["id"])) == content(plain, told)


def test_a_repeated_post_with_a_file_is_the_same_job(server, picture):
    store, _, plain = server
    body = {"prompt": "a cat", "seconds": "1", "size": "64x64", "fit": "cover"}

    def post(picture, key="key"):
        answer = plain.post(
            "/v1/videos", data=body, files={"image": ("any", picture)}, headers={"Idempotency-Key": key}
        )
        return answer.json()

    first = post(picture)
    assert post(picture)["id"] == first["id"]
    other = io.BytesIO()
    Image.new("RGB", (64, 64)).save(other, "PNG")
    assert post(other.getvalue())["error"]["code"] == "idempotency_key_reused"
    assert ended(plain, first["id"])["status"] == "completed"
    assert [path.name for path in store.files.iterdir() if path.name.startswith("upload")] == []


@pytest.mark.parametrize(
    ("path", "data", "files", "param", "said"),
    [
        ("", {}, {"image": b"no picture"}, "image", "none of png, jpg, webp"),
        ("", {}, {"image": b"\x89PNG\r\n\x1a\n, cut off"}, "image", "no picture that can be read"),
        ("", {"image": "text"}, {}, "image", "nothing is fetched"),
        ("", {"strength": "0.5"}, {}, "strength", "strength is for video"),
        ("", {"fit": "cover"}, {}, "fit", "fit is for"),
        ("", {"inputs_of": "video_nobody"}, {}, "video_id", "no video"),
        ("", {"overlap": "1"}, {}, "overlap", "unknown field"),
        ("", {}, {"video": b"\0\0\0\x20ftypisom no video"}, "video", "video"),
        ("/edits", {}, {}, "video", "video is missing"),
        ("/edits", {"strength": "0.3", "video[id]": "SOURCE"}, {}, "strength", "allowed are 1.0, 0.75"),
        ("/edits", {"video[id]": "SOURCE", "video[name]": "x"}, {}, "video", "allowed is a file"),
        ("/edits", {"video[id]": "SOURCE"}, {"image": b"x"}, "image", "unknown field"),
        ("/edits", {"video[id]": "SOURCE", "seconds": "3"}, {}, "video", "time_length=3 needs"),
        ("/extensions", {"inputs_of": "SOURCE", "seconds": "1"}, {}, "video", "video is missing"),
        ("/extensions", {"video[id]": "SOURCE"}, {}, "seconds", "allowed is 1 to 60"),
        ("/extensions", {"video[id]": "SOURCE", "seconds": "1", "overlap": "3"}, {}, "video", "overlap=3 needs"),
        ("/extensions", {"video[id]": "SOURCE", "seconds": "1", "format": "gif"}, {}, "format", "mp4, mov"),
        ("/SOURCE/remix", {}, {"video": b"x"}, "video", "there is one already"),
    ],
)
def test_what_is_refused(server, source, path, data, files, param, said):
    store, _, plain = server
    data = {name: value.replace("SOURCE", source["id"]) for name, value in {"prompt": "a cat", **data}.items()}
    number = sum(store.counts().values())
    sent = {name: (None, value) for name, value in data.items()} | {name: ("x", value) for name, value in files.items()}
    answer = plain.post(f"/v1/videos{path.replace('SOURCE', source['id'])}", files=sent)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404), answer.text
    assert said in error["message"], answer.text
    assert error["param"] == param
    assert str(store.folder) not in error["message"]
    assert sum(store.counts().values()) == number
    assert not any(path.name.startswith("upload") for path in store.files.iterdir())
