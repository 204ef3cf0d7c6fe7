"""Who is let in before anything is looked at."""

import asyncio
import json

import pytest

from kandinsky.serving.answers import Refusal
from kandinsky.serving.guard import Guard, may_be_ours, name_of


def ask(headers, body=(b"",), max_body=100, names=frozenset({"ours"})):
    """(status, code) of an answer to a request; (200, what was read) if it was let through."""
    sent = []
    parts = list(body)

    async def app(_scope, receive, send):
        read, more = b"", True
        while more:
            message = await receive()
            read, more = read + message["body"], message["more_body"]
        await send({"type": "through", "body": read})

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]}
    asyncio.run(Guard(app, names=names, max_body=max_body)(scope, receive, send))
    if sent[0]["type"] == "through":
        return 200, sent[0]["body"]
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8000", "10.0.0.1", "ours", "Ours:80"],
)
def test_names_that_are_let_in(host):
    assert may_be_ours(host, frozenset({"ours"}))
    assert ask([("host", host)]) == (200, b"")


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "ours.evil.example", "evil.ours", "localhost.evil.example", "127.0.0.1.evil.example",
        "127.0.0.1.nip.io", "evil.example:8000", "evil.example@127.0.0.1", "127.0.0.1@evil.example",
        "127.0.0.1/evil.example", "evil.example#@localhost", "localhost?x", "127.0.0.1:port", "127.0.0.1:",
        "127.0.0.1:999999",
        "[::1", "::1", "[evil.example]", "[]", ":", ":8000", "2130706433", "0x7f.1", "127.1",
        "localhost\t", "a b", "\xe9vil",
        "localhost, evil.example", "a" * 10_000,
    ],
)  # fmt: skip
def test_names_that_are_not(host):
    assert not may_be_ours(host, frozenset({"ours"}))
    assert ask([("host", host)]) == (421, "wrong_host")


def test_two_hosts_are_none():
    """Which of them a proxy looked at is not known."""
    assert ask([("host", "evil.example"), ("host", "localhost")]) == (421, "wrong_host")
    assert ask([("host", "localhost"), ("host", "evil.example")]) == (421, "wrong_host")
    assert ask([]) == (421, "wrong_host")


def test_a_name_without_its_port():
    assert (name_of("A.b:8000"), name_of("[::1]:1"), name_of("[::1")) == ("a.b", "::1", "")


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8000", True), ("https://localhost:8000", True), ("HTTP://LOCALHOST:8000", True),
        ("http://localhost", False), ("http://localhost:80001", False), ("http://localhost:8000.evil.example", False),
        ("null", False), ("", False), ("file://", False), ("http://[::1", False), ("//localhost:8000", False),
        ("http://evil.example", False), ("http://evil.example@localhost:8000", False), ("\xff", False),
        ("http://evil.example http://localhost:8000", False), ("chrome-extension://localhost:8000", False),
    ],
)  # fmt: skip
def test_pages_that_may(origin, allowed):
    found = ask([("host", "localhost:8000"), ("origin", origin)])
    assert found == ((200, b"") if allowed else (403, "wrong_origin"))


def test_a_body_is_counted_whatever_its_header_says():
    host = ("host", "localhost")
    assert ask([host], [b"a" * 50, b"a" * 50]) == (200, b"a" * 100)
    for length in ("101", "9" * 5000, "-1", "1.5", "", "\xb2", "+1"):
        assert ask([host, ("content-length", length)]) == (413, "body_too_large")
    with pytest.raises(Exception, match="a body may have 100 bytes"):
        ask([host, ("content-length", "1")], [b"a" * 50, b"a" * 51])


def test_strangers_names_and_pages(address, client):
    for host, allowed in (("localhost:1", True), ("[::1]:1", True), ("10.0.0.1", True), ("evil.example", False)):
        answer = client.get("/health", headers={"Host": host})
        assert (answer.status_code == 200) is allowed
    for origin, allowed in ((address, True), ("http://evil.example", False), ("null", False)):
        answer = client.post("/v1/videos", data={"prompt": "a"}, headers={"Origin": origin})
        assert (answer.status_code == 200) is allowed


def test_a_body_that_does_not_come_and_a_client_that_waits():
    sent = []

    async def app(_scope, receive, _send):
        sent.append(await receive())
        if not sent[-1]["more_body"]:
            await asyncio.sleep(0.05)
        sent.append(await receive())

    def run(more):
        messages = [{"type": "http.request", "body": b"a", "more_body": more}]

        async def receive():
            if not messages:
                await asyncio.sleep(0.1)
                return {"type": "http.disconnect"}
            return messages.pop()

        sent.clear()
        scope = {"type": "http", "headers": [(b"host", b"localhost")]}
        asyncio.run(Guard(app, names=frozenset(), max_body=9, patience=0.02)(scope, receive, None))

    with pytest.raises(Refusal, match="did not come") as refused:
        run(more=True)
    assert refused.value.status == 408
    run(more=False)
    assert sent[-1] == {"type": "http.disconnect"}
