"""Bodies of requests: JSON and forms, what is none, and what comes twice."""

import json

import pytest

from kandinsky.serving.answers import Refusal
from kandinsky.serving.bodies import as_form, check_names, number_in, text_in, truth_in, whole_in
from kandinsky.serving.fields import IMAGE_FIELDS, VIDEO_FIELDS

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("take", "value", "found"),
    [
        (text_in, "a", "a"), (text_in, None, None), (whole_in, 5, 5), (whole_in, "05", 5), (whole_in, None, None),
        (number_in, 0.5, 0.5), (number_in, "0.50", 0.5), (number_in, 1, 1), (number_in, None, None),
        (number_in, "-0.25", -0.25),
    ],
)  # fmt: skip
def test_a_value(take, value, found):
    more = ("any",) if take is whole_in else ()
    assert take({"x": value}, "x", *more) == found
    assert take({}, "x", *more) is None


@pytest.mark.parametrize(
    "value", [True, [1], {}, "1e3", "nan", "--1", "-", "\u0661", " 1", "", "1.", ".5", "1" * 20, b"1"]
)
def test_a_value_that_is_no_number(value):
    for take, more in ((whole_in, ("any",)), (number_in, ())):
        with pytest.raises(Refusal) as refused:
            take({"x": value}, "x", *more)
        assert (refused.value.status, refused.value.param) == (400, "x")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)])
def test_a_number_that_is_not_finite(number):
    with pytest.raises(Refusal):
        number_in({"x": number}, "x")


def test_a_truth_value():
    for value, found in ((True, True), ("false", False), (None, True)):
        assert truth_in({"x": value}, "x", default=True) is found
    for value in (1, 0, "True", "", "no", [], {}):
        with pytest.raises(Refusal):
            truth_in({"x": value}, "x", default=True)


def test_a_name_that_nobody_knows():
    check_names({"a": 1}, {"a": "", "b": ""})
    with pytest.raises(Refusal, match="allowed are a, b") as refused:
        check_names({"a": 1, "A": 1}, {"a": "", "b": ""})
    assert (refused.value.param, refused.value.code) == ("A", "unknown_parameter")


@pytest.mark.parametrize("order", [("video[id]", "video"), ("video", "video[id]"), ("video[id]", "video[id]")])
def test_an_object_and_a_text_of_one_name_are_a_field_that_came_twice(shared, order):
    answer = shared.post("/v1/videos", files=[(name, (None, "a")) for name in (*order, "prompt")])
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_value")
    assert "came twice" in error["message"]


def test_the_routes_page_knows_every_field():
    for fields in (VIDEO_FIELDS, IMAGE_FIELDS):
        content = as_form(fields)["requestBody"]["content"]
        for kind in ("application/json", "multipart/form-data"):
            assert set(content[kind]["schema"]["properties"]) == set(fields)
            assert content[kind]["schema"]["additionalProperties"] is False


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


def test_a_field_that_comes_twice_is_refused(shared):
    for twice in ('{"prompt": "a", "seed": 1, "seed": 2}', '{"prompt": "a", "seed": 1, "see\\u0064": 1}'):
        assert error_of(shared.post("/v1/videos", content=twice, headers=JSON)) == (400, "invalid_value", "seed")
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = shared.post("/v1/videos", content="prompt=a&seed=1&seed=2", headers=form)
    assert error_of(answer) == (400, "invalid_value", "seed")


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"1", b'"prompt"', b"[]", b"{", b"\xff\xfe", b"\x00", b"[" * 100_000, b'{"a":' * 50_000,
     b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", b'{"prompt": "\xff"}'],
)  # fmt: skip
def test_a_body_that_is_no_object(shared, body):
    assert error_of(shared.post("/v1/videos", content=body, headers=JSON)) == (400, "invalid_json", None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_that_is_none(shared, number):
    answer = shared.post("/v1/videos", content=f'{{"prompt": "a", "seed": {number}}}', headers=JSON)
    assert answer.status_code == 400


def test_half_a_character_is_an_answer_too(shared):
    """A lone surrogate can stand in JSON, and nowhere in UTF-8."""
    for body, param in (
        ('{"prompt": "a\\ud800"}', "prompt"),
        ('{"prompt": "a", "\\ud800": 1}', "\ufffd"),
        ('{"prompt": "a", "codec": "\\udfff"}', "codec"),
    ):
        answer = shared.post("/v1/videos", content=body, headers=JSON)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"prompt=a"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"a" * 2**21 + b"\r\n--x--\r\n",
        ),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=" % number for number in range(2000))),
    ],
)
def test_a_form_that_is_none(shared, kind, body):
    answer = shared.post("/v1/videos", content=body, headers={"content-type": kind})
    assert error_of(answer)[:2] == (400, "invalid_form")


def test_a_file_is_no_prompt(client, hands):
    answer = client.post("/v1/videos", files={"prompt": ("../../x", b"a cat")})
    assert error_of(answer) == (400, "invalid_value", "prompt")
    assert hands.store.counts()["queued"] == 0


def test_a_content_type_is_read_as_the_standard_says(client):
    body = json.dumps({"prompt": "a"})
    for kind, status in (
        ("Application/JSON; charset=utf-8", 200),
        ("text/json", 415),
        ("", 415),
        ("application/jsonx", 415),
    ):
        assert client.post("/v1/videos", content=body, headers={"content-type": kind}).status_code == status


def test_wrong_bodies(client):
    for settings, status, code in (
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
        ({"json": ["prompt"]}, 400, "invalid_json"),
        ({"content": b"prompt", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"files": [("prompt", (None, "a")), ("prompt", (None, "b"))]}, 400, "invalid_value"),
        ({"json": {"prompt": "a" * 2**25}}, 413, "body_too_large"),
        (
            {"content": (b" " * 2**20 for _ in range(20)), "headers": {"content-type": "application/json"}},
            413,
            "body_too_large",
        ),
    ):
        answer = client.post("/v1/videos", **settings)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_form_and_json_are_the_same(client, hands):
    fields = {"text": "a cat", "seconds": "1", "size": "96x64", "seed": "5", "crf": "9", "metadata": "false"}
    form = client.post("/v1/videos", files=[(name, (None, value)) for name, value in fields.items()]).json()
    plain = client.post("/v1/videos", data=fields).json()
    typed = client.post("/v1/videos", json={**fields, "seconds": 1, "seed": 5, "crf": 9, "metadata": False}).json()
    assert hands.store.get(form["id"]).asked == hands.store.get(typed["id"]).asked == hands.store.get(plain["id"]).asked
