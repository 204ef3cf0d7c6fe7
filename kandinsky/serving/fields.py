"""What a client sends to what it asked for: every field is known and looked at, none is passed over."""

import dataclasses
import re
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kandinsky.config import INTERPOLATORS, PRECISIONS
from kandinsky.errors import shown
from kandinsky.output.options import interpolator_of
from kandinsky.output.paths import IMAGE_ENDINGS, VIDEO_CODECS, VIDEO_ENDINGS
from kandinsky.request import MAX_SEED, check_loras
from kandinsky.serving.answers import Refusal, wrong
from kandinsky.serving.bodies import check_names, number_in, text_in, truth_in, whole_in
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
    "interpolate": "2, 3 or 4 times as many frames a second, for the same length.",
    "interpolate_with": "What makes the frames in between: ffmpeg (default), or network.",
    "precision": "That of this server, or nothing: " + " or ".join(PRECISIONS) + ".",
    "loras": "A weight for each name of the server's LoRAs; 0 for what is not named. Without it, the server's own.",
    "input_reference": "Picture that is the first frame: png, jpeg or webp.",
    "image": "The same by this library's own name.",
    "last_image": "Picture that the last frames show.",
    "video": "Video that is changed, by strength or mask; its whole seconds are the length.",
    "mask": "Picture or video, white where video or image is made anew.",
    "strength": "How much of the video changes: 1, 0.75, 0.5 or 0.25.",
    "fit": "How a picture gets to another size: cover, contain or stretch.",
    "inputs_of": "Id of an own job whose pictures and videos are used once more.",
}
_OF_PICTURES = ("input_reference", "image", "last_image", "inputs_of")
EDIT_FIELDS: Mapping[str, str] = {name: said for name, said in VIDEO_FIELDS.items() if name not in _OF_PICTURES}
_NOT_EXTENDED = ("mask", "strength", "interpolate", "interpolate_with")
EXTEND_FIELDS: Mapping[str, str] = {
    **{name: said for name, said in EDIT_FIELDS.items() if name not in _NOT_EXTENDED},
    "video": "Video that is gone on with.",
    "seconds": "That come to the video's own.",
    "format": "Kind of file: " + ", ".join(ending.removeprefix(".") for ending in VIDEO_CODECS) + ".",
    "overlap": "Seconds that each piece knows of what came before it.",
    "inputs_of": "Id of an own extension whose video is gone on with once more.",
}
IMAGE_FIELDS: Mapping[str, str] = {
    **{
        name: VIDEO_FIELDS[name]
        for name in ("prompt", "text", "model", "size", "seed", "metadata", "precision", "loras")
    },
    "n": "Number of images, with seeds that count up.",
    "output_format": "png, jpeg or webp.",
    "response_format": "b64_json.",
    "background": "true: answered at once with the jobs, which are at /v1/videos/{id} like others.",
}
USUAL_STRENGTH = 0.5
"""Of an edit that does not say."""
MAX_IMAGES = 16
EXACT_IN_BROWSERS = 2**53
"""Seeds are drawn below it: larger whole numbers of JSON lose their last digits in a browser."""


def video_of(body: Mapping[str, Any], options: Options, *, inputs: Collection[str] = ()) -> Asked:
    """What a body asks for; with inputs it is to be looked at with them once more.

    Args:
        inputs: arguments of the pipeline that files come for.

    Raises:
        Refusal: names the field.
    """
    check_names(body, VIDEO_FIELDS)
    seconds = whole_in(body, "seconds", f"1 to {options.longest}")
    if seconds is not None and not 1 <= seconds <= options.longest:
        raise wrong(f"seconds={seconds}: allowed is 1 to {options.longest}", param="seconds")
    asked = _asked(body, options, time_length=min(12, options.longest) if seconds is None else seconds)
    strength, fit = number_in(body, "strength"), text_in(body, "fit")
    for name, value, needed in (("strength", strength, {"video"}), ("fit", fit, {"image", "last_image", "video"})):
        if value is not None and not needed & set(inputs):
            raise wrong(f"{name} is for {' and '.join(sorted(needed))}, and there is none", param=name)
    return dataclasses.replace(asked, strength=strength, fit=fit)


def edit_of(body: Mapping[str, Any], options: Options, *, inputs: Collection[str]) -> Asked:
    """What the body of an edit asks for: half of the steps, if it does not say.

    Raises:
        Refusal: as `video_of`.
    """
    check_names(body, EDIT_FIELDS)
    usual = {} if "mask" in inputs else {"strength": USUAL_STRENGTH}
    return video_of({**usual, **body}, options, inputs=inputs)


def extension_of(body: Mapping[str, Any], options: Options, *, inputs: Collection[str] = ("video",)) -> Asked:
    """What the body of an extension asks for.

    Raises:
        Refusal: as `video_of`.
    """
    check_names(body, EXTEND_FIELDS)
    if set(inputs) != {"video"}:
        raise wrong("inputs_of: allowed is a job that has a video and nothing else", param="inputs_of")
    most = options.longest_extension
    seconds, overlap = whole_in(body, "seconds", f"1 to {most}"), whole_in(body, "overlap", "1 and more")
    if seconds is None or not 1 <= seconds <= most:
        raise wrong(f"seconds={seconds}: allowed is 1 to {most}", param="seconds")
    asked = dataclasses.replace(_asked(body, options, time_length=1), time_length=seconds)
    if asked.ending not in VIDEO_CODECS:
        raise wrong(f"format={asked.ending[1:]}: allowed are mp4, mov, mkv and webm", param="format")
    return dataclasses.replace(asked, overlap=1 if overlap is None else overlap, fit=text_in(body, "fit"))


def _asked(body: Mapping[str, Any], options: Options, *, time_length: int) -> Asked:
    width, height = _size(body, options)
    codec = text_in(body, "codec")
    ending = f".{text_in(body, 'format') or ('webm' if codec == 'vp9' else 'mp4')}"
    if ending not in VIDEO_ENDINGS:
        raise wrong(f"format={shown(ending[1:])}: allowed is {VIDEO_FIELDS['format']}", param="format")
    return _checked(
        options,
        text=_prompt(body, options),
        seed=whole_in(body, "seed", f"0 to {MAX_SEED}"),
        time_length=time_length,
        width=width,
        height=height,
        ending=ending,
        fps=whole_in(body, "fps", "1 to 120"),
        crf=whole_in(body, "crf", "0 to 63"),
        codec=codec,
        metadata=truth_in(body, "metadata", default=True),
        loras=_loras(body, options),
        **_between(body),
    )


def _loras(body: Mapping[str, Any], options: Options) -> Mapping[str, float] | None:
    """A weight for every LoRA of the server, or nothing."""
    given: Any = body.get("loras")
    if given is None:
        return None
    if isinstance(given, Mapping):  # forms have text
        given = {name: number_in({"loras": weight}, "loras") for name, weight in given.items()}
    try:
        check_loras(given, options.loras)
    except ValueError as error:
        raise wrong(str(error), param="loras") from None
    return {name: given.get(name) or 0.0 for name in options.loras} or None


def _between(body: Mapping[str, Any]) -> dict[str, Any]:
    """Frames between frames; the pipeline's own check of them needs PyTorch."""
    factor, way = whole_in(body, "interpolate", "2, 3 or 4"), text_in(body, "interpolate_with")
    if factor not in (None, 2, 3, 4):
        raise wrong(f"interpolate={factor}: allowed are 2, 3 and 4", param="interpolate")
    if way is not None and (way not in INTERPOLATORS or factor is None):
        allowed = ", ".join(INTERPOLATORS)
        raise wrong(
            f"interpolate_with={shown(way)}: allowed are {allowed}, beside interpolate", param="interpolate_with"
        )
    return {"interpolate": factor, "interpolate_with": interpolator_of(factor, way)}


def images_of(body: Mapping[str, Any], options: Options) -> list[Asked]:
    """The images that a body asks for.

    Raises:
        Refusal: names the field.
    """
    check_names(body, IMAGE_FIELDS)
    if body.get("response_format") not in (None, "b64_json"):
        raise wrong(f"response_format={shown(body['response_format'])}: allowed is b64_json", param="response_format")
    number = whole_in(body, "n", f"1 to {MAX_IMAGES}")
    count = 1 if number is None else number
    if not 1 <= count <= MAX_IMAGES:
        raise wrong(f"n={count}: allowed is 1 to {MAX_IMAGES}", param="n")
    ending = f".{text_in(body, 'output_format') or 'png'}"
    if ending not in IMAGE_ENDINGS:
        raise wrong(f"output_format={shown(ending[1:])}: allowed are png, jpeg and webp", param="output_format")
    width, height = _size(body, options)
    first = _checked(
        options,
        text=_prompt(body, options),
        seed=whole_in(body, "seed", f"0 to {MAX_SEED - count + 1}"),
        time_length=0,
        width=width,
        height=height,
        ending=ending,
        metadata=truth_in(body, "metadata", default=True),
        loras=_loras(body, options),
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
        dataclasses.replace(asked, interpolate=None, interpolate_with=None).request(Path(), model_set=options.model_set)
    except ValueError as error:
        raise refused(str(error)) from None
    return asked


def refused(said: str) -> Refusal:
    """What the pipeline says of an argument, with the protocol's name of it."""
    found = re.match(r"\w+", said)
    name = _NAMES.get(found[0], found[0]) if found else None
    return wrong(said, param=name if name in {*VIDEO_FIELDS, *EXTEND_FIELDS} else None)


def _prompt(body: Mapping[str, Any], options: Options) -> str:
    given = [name for name in ("prompt", "text") if body.get(name) is not None]
    if len(given) != 1:
        what = "prompt and text are two names of one field" if given else "prompt is missing"
        raise wrong(f"{what}: send one of them", param="prompt", code="missing_parameter")
    prompt = text_in(body, given[0]) or ""
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
    given = text_in(body, "size")
    if given is None:
        return options.size
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", given)
    size = (int(found[1]), int(found[2])) if found else None
    if size not in options.model_set.sizes:
        allowed = ", ".join(f"{width}x{height}" for width, height in options.model_set.sizes)
        raise wrong(f"size={shown(given)}: allowed are {allowed}", param="size")
    return size
