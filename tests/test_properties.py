"""Whatever a call or a line of a prompt file says, it is accepted or refused with ValueError: random requests.

No model runs: what is tried is the checking, and the arithmetic of shapes. 750 requests by default, 3,000 if there is
time.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kandinsky.batch.prompts import DEFAULTS, read_prompts
from kandinsky.output.options import OutputOptions
from kandinsky.request import check_targets, request_of

COUNTS = [250, pytest.param(1000, marks=pytest.mark.slow)]
TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
"""With control characters and halves of surrogate pairs."""
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary(max_size=9), st.just(object()),
    st.sampled_from([10**30, -(10**5000), np.int64(1), np.float32(1), np.zeros(2), 2**63 - 1, 2**63]),
    st.lists(st.integers() | TEXT, max_size=3), st.dictionaries(TEXT, st.integers(), max_size=2),
)  # fmt: skip
SOME_NAMES = (
    "v.mp4", "../v.mp4", "~/v.mp4", "/v.mp4", "a\0.mp4", "x" * 300 + ".mp4", "🐦" * 63 + ".mp4", "v.MKV", "v.webm",
    "f/", "../", "./", "v.gif/", "{v}.webp", "i.jpg",
)  # fmt: skip
NAMES = st.one_of(st.just("v.mp4"), TEXT, TEXT.map(lambda name: name + ".mp4"), st.sampled_from(SOME_NAMES))
PATHS = st.integers(0, 5).flatmap(lambda kind: ODD if kind == 0 else NAMES.map(Path) if kind == 1 else NAMES)
ARGUMENTS = {
    "text": TEXT | st.lists(TEXT, max_size=3),
    "bs": st.integers(-1, 20),
    "time_length": st.integers(-1, 65),
    "width": st.sampled_from([64, 96, np.int64(64), 65]),
    "height": st.sampled_from([64, 64, 96]),
    "seed": st.none() | st.integers(-1, 2**63),
    "return_frames": st.booleans(),
    "output_type": st.none() | st.sampled_from(["file", "pil", "np", "pt", "latent"]),
    "fps": st.none() | st.integers(1, 121),
    "crf": st.none() | st.integers(0, 52),
    "codec": st.none() | st.sampled_from(["h264", "hevc", "vp9"]),
    "metadata": st.booleans(),
}
SANE = {"text": "a cat", "time_length": 1, "width": 64, "height": 64}


def examples(count):
    """The same ones each time."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@st.composite
def drawn(draw, strategies, odd):
    """Some of the arguments, most of the time mostly right."""
    chosen = draw(st.lists(st.sampled_from(sorted(strategies)), unique=True))
    return {name: draw(odd if draw(st.integers(0, 5)) == 0 else strategies[name]) for name in chosen}


def checked(**arguments):
    """The jobs that the arguments of a call mean, whose targets can be written."""
    named = {"type": "output_type", "fps": "fps", "crf": "crf", "codec": "codec", "metadata": "metadata"}
    options = OutputOptions(**{field: arguments.pop(name) for field, name in named.items() if name in arguments})
    request = request_of(**arguments, model_set=SMALL, options=options)
    check_targets(request)
    return request.jobs


@pytest.mark.filterwarnings("ignore:crf=0")
@pytest.mark.parametrize("count", COUNTS)
def test_calls(tmp_path, count):
    counts = Counter()

    @examples(count)
    @given(drawn(ARGUMENTS, ODD), PATHS)
    def check(arguments, name):
        path = tmp_path / name if isinstance(name, str | Path) else name
        try:
            checked(save_path=path, **{**SANE, **arguments})
        except ValueError:
            counts["refused"] += 1
        else:
            counts["accepted"] += 1

    check()
    assert counts.total() >= count
    assert min(counts["accepted"], counts["refused"]) > count / 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", COUNTS)
def test_plain_calls_are_accepted(tmp_path, count):
    right = {
        "text": st.text(),
        "bs": st.integers(1, 9),
        "time_length": st.integers(0, 63),
        "width": st.sampled_from([64, 96]),
    }
    accepted = 0

    @examples(count)
    @given(st.fixed_dictionaries(right), st.integers(0, 2**63 - 10))
    def check(arguments, seed):
        nonlocal accepted
        name = "v.mp4" if arguments["time_length"] else "v.png"
        jobs = checked(**arguments, save_path=tmp_path / name, height=64, seed=seed)
        assert [(job.prompt, job.seed) for job in jobs] == [
            (arguments["text"], seed + i) for i in range(arguments["bs"])
        ]
        accepted += 1

    check()
    assert accepted >= count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:crf=0")
@pytest.mark.parametrize("count", COUNTS)
def test_prompt_files(tmp_path, count):
    values = {
        **{name: ARGUMENTS[name] for name in DEFAULTS if name in ARGUMENTS},
        "interpolate": st.none() | st.integers(0, 5),
        "interpolate_with": st.none() | st.sampled_from(["network", "ffmpeg", "gpu"]),
        "loras": st.none() | st.dictionaries(TEXT, st.floats(), max_size=2),
        "text": TEXT,
        "save_path": NAMES,
        "width": st.sampled_from([64, 96, 65]),
    }
    json_like = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    )
    line = drawn(values, json_like).map(lambda given: json.dumps({**SANE, **given}))
    kinds = [TEXT, json_like.map(json.dumps), *[line] * 8]
    lines = st.integers(0, len(kinds) - 1).flatmap(lambda kind: st.lists(kinds[kind], min_size=1, max_size=2))
    counts = Counter()
    file = tmp_path / "p.jsonl"

    @examples(count)
    @given(lines.map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def check(content):
        file.write_bytes(content)
        try:
            items = read_prompts(file, {"seed": 1, "time_length": 1, "width": 64, "height": 64}, model_set=SMALL)
        except ValueError:
            counts["refused"] += 1
            return
        counts["accepted"] += 1
        for item in items:
            assert item.job.path.name == str(item.job.path) == item.name.removesuffix("/")
            assert (tmp_path / item.job.path).resolve().parent == tmp_path.resolve()
            assert json.loads(json.dumps(dict(item.asked))) == dict(item.asked)

    check()
    assert counts.total() >= count
    assert min(counts["accepted"], counts["refused"]) > count / 10
