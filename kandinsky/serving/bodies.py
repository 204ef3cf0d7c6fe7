"""Bodies of requests, as JSON or a form, and the values in them.

Multipart forms carry text, so numbers and truth values may come as text in JSON too.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from kandinsky.errors import shown
from kandinsky.serving.answers import Refusal, wrong

LARGEST = 1e6
"""Number that need not be whole."""


async def read_body(request: Request) -> dict[str, Any]:
    """The fields of a JSON or multipart body.

    Raises:
        Refusal: it is none of these, or has a field twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        try:
            form = await request.form()
        except HTTPException as error:
            raise wrong(f"the body is not a form: {error.detail}", code="invalid_form") from None
        names = [name for name, _ in form.multi_items()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise wrong(f"the field {shown(twice)} came twice", param=twice[:64])
        return _nested(form.multi_items())
    if kind != "application/json":
        raise Refusal(415, "allowed are application/json and multipart/form-data", code="unsupported_media_type")
    try:
        body = json.loads(await request.body(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise wrong(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise wrong("the body is not a JSON object", code="invalid_json")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no name comes twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise wrong(f"the field {shown(name)} came twice", param=name[:64])
        found[name] = value
    return found


def _nested(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Fields of a form, in which `video[id]` is the `id` of an object `video`."""
    body: dict[str, Any] = {}
    for name, value in items:
        found = re.fullmatch(r"(\w+)\[(\w+)\]", name)
        if found is None:
            if name in body:
                raise wrong(f"the field {shown(name)} came twice", param=name[:64])
            body[name] = value
            continue
        outer = body.setdefault(found[1], {})
        if not isinstance(outer, dict):
            raise wrong(f"the field {shown(found[1])} came twice", param=found[1][:64])
        outer[found[2]] = value
    return body


def check_names(body: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Refuse a field that would be passed over.

    Raises:
        Refusal: names it.
    """
    for name in body:
        if name not in known:
            raise wrong(
                f"unknown field {shown(name)}; allowed are {', '.join(known)}",
                param=name[:64],
                code="unknown_parameter",
            )


def text_in(body: Mapping[str, Any], name: str) -> str | None:
    """A text, or nothing.

    Raises:
        Refusal: it is something else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(f"{name}={shown(value)}: allowed is a text", param=name)
    return value


def whole_in(body: Mapping[str, Any], name: str, allowed: str) -> int | None:
    """A whole number, or nothing; `allowed` is for the message.

    Raises:
        Refusal: it is something else.
    """
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        return int(value)
    raise wrong(f"{name}={shown(value)}: must be a whole number; allowed is {allowed}", param=name)


def number_in(body: Mapping[str, Any], name: str) -> float | None:
    """A number, or nothing.

    Raises:
        Refusal: it is something else.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:  # which NaN is not
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,3}(\.[0-9]{1,6})?", value):
        return float(value)
    raise wrong(f"{name}={shown(value)}: must be a number", param=name)


def truth_in(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """A truth value.

    Raises:
        Refusal: it is something else.
    """
    value = body.get(name)
    found = {None: default, True: True, False: False, "true": True, "false": False}
    if not isinstance(value, str | bool | None) or value not in found:
        raise wrong(f"{name}={shown(value)}: allowed are true and false", param=name)
    return found[value]


def as_form(fields: Mapping[str, str]) -> dict[str, Any]:
    """For the OpenAPI page: a body with these fields, as JSON or a form."""
    schema = {
        "type": "object",
        "properties": {name: {"description": text} for name, text in fields.items()},
        "additionalProperties": False,
    }
    return {
        "requestBody": {"content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": schema}}}
    }
