"""Who is let in before anything is looked at: Host and Origin headers, and the size of a body.

A page of a stranger in the user's browser must not reach a server on the user's own machine: not by a name of its own
that it has pointed there (DNS rebinding), which the Host header tells, nor by a form that it sends, which the Origin
header tells. An address in the Host header cannot be a stranger's name.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from kandinsky.serving.answers import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
"""A name or an address, with or without a port, and nothing else that a URL may have there."""
PATIENCE = 60.0
"""Seconds in which a client that sends a body must get on."""
MAX_DIGITS = 18
"""Of a Content-Length that is read as a number at all."""


def name_of(host: str) -> str:
    """A Host header without its port, in small letters; "" if it is none."""
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower() if found else ""


def may_be_ours(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header is an address, localhost, or one of `names`."""
    name = name_of(host)
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Around an ASGI application.

    Args:
        names: that the Host header may have.
        max_body: bytes.
        patience: seconds for the next piece of a body.
    """

    def __init__(self, app: App, *, names: frozenset[str], max_body: int, patience: float = PATIENCE):
        self._app = app
        self._names = names
        self._max_body = max_body
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        taken, whole = 0, False

        async def counted() -> Message:
            nonlocal taken, whole
            try:  # beyond the body it is waited for the client's going, however long that takes
                message = await asyncio.wait_for(receive(), None if whole else self._patience)
            except TimeoutError:
                raise Refusal(408, "the body did not come", code="timeout") from None
            whole = not message.get("more_body", False)
            taken += len(message.get("body", b""))
            if taken > self._max_body:
                raise self._too_large()  # answered within: the application knows refusals
            return message

        await self._app(scope, counted, send)

    def _refusal(self, given: list[tuple[str, str]]) -> Refusal | None:
        headers = dict(given)
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts = sum(name == "host" for name, _ in given)
        if hosts != 1 or not may_be_ours(host, self._names):
            said = f"the Host header {host[:100]!r} is not a name of this server (--allow-host)"
            return Refusal(421, said, code="wrong_host")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return Refusal(403, f"a page of {origin[:100]!r} may not use this server", code="wrong_origin")
        length = headers.get("content-length", "0")
        readable = length.isdecimal() and len(length) <= MAX_DIGITS
        return None if readable and int(length) <= self._max_body else self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, f"a body may have {self._max_body} bytes (--max-body)", code="body_too_large")
