"""Bodies of requests: JSON and forms to fields, and the values in them."""

import asyncio

import pytest
from fastapi import Request
from starlette.datastructures import UploadFile

from kandinsky.serving.answers import Refusal
from kandinsky.serving.bodies import as_form, check_names, number_in, read_body, text_in, truth_in, whole_in

FORM = "multipart/form-data; boundary=edge"


def read(content, kind="application/json"):
    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "headers": headers, "query_string": b"", "app": None}
    return asyncio.run(read_body(Request(scope, receive)))


def form(*parts):
    lines = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts
    )
    return f"{lines}--edge--\r\n".encode()


def test_json_and_forms_mean_the_same():
    assert read(b'{"prompt": "a", "seconds": 2}') == {"prompt": "a", "seconds": 2}
    assert read(form(("prompt", "a"), ("seconds", "2")), FORM) == {"prompt": "a", "seconds": "2"}
    assert read(b"prompt=a+cat", "application/x-www-form-urlencoded") == {"prompt": "a cat"}


def test_an_object_in_a_form():
    body = read(form(("video[id]", "video_1"), ("image[image_url]", "data:"), ("a[b", "c")), FORM)
    assert body == {"video": {"id": "video_1"}, "image": {"image_url": "data:"}, "a[b": "c"}


def test_a_file_in_a_form():
    content = form(("image", "x")).replace(b'name="image"', b'name="image"; filename="i.png"')
    file = read(content, FORM)["image"]
    assert isinstance(file, UploadFile)
    assert file.file.read() == b"x"


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 400, "invalid_json"),
        (b'{"a": 1, "a": 2}', "application/json", 400, "invalid_value"),
        (form(("a", "1"), ("a", "2")), FORM, 400, "invalid_value"),
        (form(("a", "1"), ("a[b]", "2")), FORM, 400, "invalid_value"),
        (b"no form", "multipart/form-data", 400, "invalid_form"),
        (b"a", "text/plain", 415, "unsupported_media_type"),
    ],
)
def test_what_is_no_body(content, kind, status, code):
    with pytest.raises(Refusal) as caught:
        read(content, kind)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_values():
    body = {"text": "a", "whole": "12", "number": "0.5", "truth": "false", "none": None}
    assert text_in(body, "text") == "a"
    assert whole_in(body, "whole", "any") == 12
    assert number_in(body, "number") == 0.5
    assert truth_in(body, "truth", default=True) is False
    assert truth_in(body, "none", default=True) is True
    assert text_in(body, "none") is whole_in(body, "none", "any") is number_in(body, "none") is None
    for take, value in (
        (text_in, 1),
        (lambda body, name: whole_in(body, name, "any"), 1.5),
        (lambda body, name: whole_in(body, name, "any"), True),
        (number_in, "-1"),
        (number_in, "nan"),
        (number_in, True),
        (lambda body, name: truth_in(body, name, default=True), 1.5),
    ):
        with pytest.raises(Refusal) as caught:
            take({"field": value}, "field")
        assert caught.value.param == "field"


def test_names():
    fields = {"prompt": "What it shows."}
    check_names({"prompt": "a"}, fields)
    with pytest.raises(Refusal, match="allowed are prompt") as caught:
        check_names({"prompt": "a", "nonsense": 1}, fields)
    assert (caught.value.param, caught.value.code) == ("nonsense", "unknown_parameter")
    content = as_form(fields)["requestBody"]["content"]
    assert content["multipart/form-data"] == content["application/json"]
