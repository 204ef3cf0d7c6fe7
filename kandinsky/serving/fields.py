"""What a client sends to what it asked for: every field is known and looked at, none is passed over.

Multipart forms carry text, so numbers and truth values may come as text in JSON too.
"""

import dataclasses
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from kandinsky.config import PRECISIONS
from kandinsky.errors import shown
from kandinsky.output.paths import IMAGE_ENDINGS, VIDEO_ENDINGS
from kandinsky.request import MAX_SEED
from kandinsky.serving.answers import Refusal, not_yet, wrong
from kandinsky.serving.job import Asked
from kandinsky.serving.options import MODEL, Options

VIDEO_FIELDS: Mapping[str, str] = {
    "prompt": "What the video shows.",
    "text": "The same by this library's own name; one of the two is needed.",
    "model": f"{MODEL}, or nothing.",
    "seconds": "Length, a whole number.",
    "size": "WIDTHxHEIGHT.",
    "seed": f"0 to {MAX_SEED}; without it one is drawn, and stands in the answer.",
    "format": "Kind of file: " + ", ".join(ending.removeprefix(".") for ending in VIDEO_ENDINGS) + ".",
    "fps": "Frames per second that the file plays at.",
    "crf": "Quality of a video file.",
    "codec": "h264, hevc or vp9.",
    "metadata": "Whether the record of the generation goes into the file.",
    "precision": "That of this server, or nothing: " + " or ".join(PRECISIONS) + ".",
}
IMAGE_FIELDS: Mapping[str, str] = {
    **{name: VIDEO_FIELDS[name] for name in ("prompt", "text", "model", "size", "seed", "metadata", "precision")},
    "n": "Number of images, with seeds that count up.",
    "output_format": "png, jpeg or webp.",
    "response_format": "b64_json.",
}
NOT_YET = ("input_reference", "strength", "image", "mask")
"""Fields of the protocol, or of our own, that will be."""
MAX_IMAGES = 16
EXACT_IN_BROWSERS = 2**53
"""Seeds are drawn below it: larger whole numbers of JSON lose their last digits in a browser."""


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
        return dict(form)
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


def video_of(body: Mapping[str, Any], options: Options) -> Asked:
    """What a body asks for.

    Raises:
        Refusal: names the field.
    """
    _check_names(body, VIDEO_FIELDS)
    seconds = _whole(body, "seconds", f"1 to {options.longest}")
    if seconds is not None and not 1 <= seconds <= options.longest:
        raise wrong(f"seconds={seconds}: allowed is 1 to {options.longest}", param="seconds")
    width, height = _size(body, options)
    codec = _text(body, "codec")
    ending = f".{_text(body, 'format') or ('webm' if codec == 'vp9' else 'mp4')}"
    if ending not in VIDEO_ENDINGS:
        raise wrong(f"format={shown(ending[1:])}: allowed is {VIDEO_FIELDS['format']}", param="format")
    return _checked(
        options,
        text=_prompt(body, options),
        seed=_whole(body, "seed", f"0 to {MAX_SEED}"),
        time_length=min(12, options.longest) if seconds is None else seconds,
        width=width,
        height=height,
        ending=ending,
        fps=_whole(body, "fps", "1 to 120"),
        crf=_whole(body, "crf", "0 to 63"),
        codec=codec,
        metadata=_truth(body, "metadata", default=True),
    )


def images_of(body: Mapping[str, Any], options: Options) -> list[Asked]:
    """The images that a body asks for.

    Raises:
        Refusal: names the field.
    """
    _check_names(body, IMAGE_FIELDS)
    if body.get("response_format") not in (None, "b64_json"):
        raise wrong(f"response_format={shown(body['response_format'])}: allowed is b64_json", param="response_format")
    number = _whole(body, "n", f"1 to {MAX_IMAGES}")
    count = 1 if number is None else number
    if not 1 <= count <= MAX_IMAGES:
        raise wrong(f"n={count}: allowed is 1 to {MAX_IMAGES}", param="n")
    ending = f".{_text(body, 'output_format') or 'png'}"
    if ending not in IMAGE_ENDINGS:
        raise wrong(f"output_format={shown(ending[1:])}: allowed are png, jpeg and webp", param="output_format")
    width, height = _size(body, options)
    first = _checked(
        options,
        text=_prompt(body, options),
        seed=_whole(body, "seed", f"0 to {MAX_SEED - count + 1}"),
        time_length=0,
        width=width,
        height=height,
        ending=ending,
        metadata=_truth(body, "metadata", default=True),
    )
    if first.seed > MAX_SEED - count + 1:
        raise wrong(f"seed={first.seed}: {count} images count up from it, beyond {MAX_SEED}", param="seed")
    return [dataclasses.replace(first, seed=first.seed + index) for index in range(count)]


_NAMES = {"text": "prompt", "time_length": "seconds", "width": "size", "height": "size", "save_path": "format"}
"""Of the protocol, for the pipeline's own."""


def _checked(options: Options, *, seed: int | None, **given: Any) -> Asked:
    """With a seed, if none was given, once the pipeline's own checks have let it pass."""
    asked = Asked(seed=secrets.randbelow(EXACT_IN_BROWSERS) if seed is None else seed, **given)
    try:
        asked.request(Path(), model_set=options.model_set)
    except ValueError as error:
        name = re.match(r"\w+", str(error))
        raise wrong(str(error), param=_NAMES.get(name[0], name[0]) if name else None) from None
    return asked


def _check_names(body: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for name in body:
        if name in NOT_YET:
            raise not_yet(name, param=name)
        if name not in known:
            raise wrong(
                f"unknown field {shown(name)}; allowed are {', '.join(known)}",
                param=name[:64],
                code="unknown_parameter",
            )


def _prompt(body: Mapping[str, Any], options: Options) -> str:
    given = [name for name in ("prompt", "text") if body.get(name) is not None]
    if len(given) != 1:
        what = "prompt and text are two names of one field" if given else "prompt is missing"
        raise wrong(f"{what}: send one of them", param="prompt", code="missing_parameter")
    prompt = _text(body, given[0]) or ""
    if not prompt.strip():
        raise wrong("the prompt is empty: write what the video should show", param=given[0])
    if len(prompt) > options.max_prompt:
        raise wrong(
            f"the prompt has {len(prompt)} characters, allowed are {options.max_prompt}",
            param=given[0],
            code="prompt_too_long",
        )
    if body.get("model") not in (None, MODEL):
        raise wrong(f"model={shown(body['model'])}: this server has {MODEL}", param="model", code="model_not_found")
    if body.get("precision") not in (None, options.precision):
        raise wrong(
            f"precision={shown(body['precision'])}: this server's workers have {options.precision!r}", param="precision"
        )
    return prompt


def _size(body: Mapping[str, Any], options: Options) -> tuple[int, int]:
    given = _text(body, "size")
    if given is None:
        return options.size
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", given)
    size = (int(found[1]), int(found[2])) if found else None
    if size not in options.model_set.sizes:
        allowed = ", ".join(f"{width}x{height}" for width, height in options.model_set.sizes)
        raise wrong(f"size={shown(given)}: allowed are {allowed}", param="size")
    return size


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong(f"{name}={shown(value)}: allowed is a text", param=name)
    return value


def _whole(body: Mapping[str, Any], name: str, allowed: str) -> int | None:
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        return int(value)
    raise wrong(f"{name}={shown(value)}: must be a whole number; allowed is {allowed}", param=name)


def _truth(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
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
