"""Prompt files: what their lines become, and what is refused, with the line named."""

import json

import pytest
from helpers import SMALL

from kandinsky.batch.prompts import make_items, read_prompts

SETTINGS = {"seed": 1, "time_length": 1, "width": 64, "height": 64}


def read(path, content, **settings):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_prompts(path, {**SETTINGS, **settings}, model_set=SMALL)


def test_text(tmp_path):
    items = read(tmp_path / "p.txt", "\ufeffa cat\r\n\r\n  a dog\u2028in two lines \n")
    assert [item.job.prompt for item in items] == ["a cat", "a dog\u2028in two lines"]
    assert [(str(item.job.path), item.job.seed) for item in items] == [("0001.mp4", 1), ("0002.mp4", 2)]


def test_every_argument_of_a_line(tmp_path):
    own = {"text": "a\n'dog' \"$(ls)\"", "seed": 2**63 - 1, "time_length": 2, "width": 96, "height": 64}
    own |= {"save_path": "dog und Ödipus.mkv", "fps": 12, "crf": 20, "codec": "vp9", "metadata": False}
    lines = [{"text": "a cat"}, own]
    first, second = read(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines)), seed=None, crf=7)
    assert (first.asked["seed"], first.shape.seconds) == (None, 1)
    assert (first.output.crf, first.output.codec, first.output.metadata) == (7, "h264", True)
    assert dict(second.asked) == own
    assert (second.job.prompt, second.job.seed, second.shape.width) == (own["text"], own["seed"], 96)
    assert (second.output.fps, second.output.crf, second.output.codec) == (12, 20, "vp9")


def test_other_kinds_of_output(tmp_path):
    lines = [
        {"text": "a cat", "time_length": 0, "fps": None},
        {"text": "a cat", "save_path": "frames/", "crf": None},
        {"text": "a cat", "codec": "vp9"},
        {"text": "a cat", "bs": 2, "save_path": "two.gif", "crf": None},
        {"text": "a cat"},
    ]
    items = read(tmp_path / "p.jsonl", "\n".join(map(json.dumps, lines)), fps=12)
    names = ["0001.png", "frames/", "0003.webm", "two-0.gif", "two-1.gif", "0005.mp4"]
    assert [item.name for item in items] == names
    assert [item.job.seed for item in items] == [1, 2, 3, 4, 5, 6]
    assert [item.number for item in items] == [1, 2, 3, 4, 5, 6]
    assert [item.output.fps for item in items] == [None, 12, 12, 12, 12, 12]


def test_long_prompts_and_names(tmp_path):
    (item,) = read(tmp_path / "p.txt", "🐦" * 10_000)
    assert str(item.job.path) == "0001.mp4"
    assert len(item.job.prompt) == 10_000


WRONG = {
    "json": ("{", "line 2: not JSON"),
    "nested": ("[" * 100_000, "line 2: not JSON"),
    "array": ("[]", r"line 2: \[\]: allowed is an object with the keys text, bs, seed"),
    "key": ('{"text": "x", "sed": 1}', "line 2: unknown key 'sed'; allowed are text, bs, seed, time_length"),
    "no text": ("{}", "line 2: text=None: allowed is a string"),
    "surrogate": ('{"text": "\\ud800"}', "line 2: text='.ud800': allowed is text that UTF-8 can hold"),
    "seed": ('{"text": "x", "seed": 1.5}', "line 2: seed=1.5: must be a whole number"),
    "size": ('{"text": "x", "width": NaN}', "line 2: width=nan: must be a whole number"),
    "ending": ('{"text": "x", "save_path": "a.png"}', "line 2: save_path='a.png': must end with one of .mp4"),
    "bs": ('{"text": "x", "bs": 0}', "line 2: bs=0: allowed is 1 and more"),
    "codec": ('{"text": "x", "codec": "vp9", "save_path": "a.mp4"}', "line 2: codec='vp9': in a .mp4 file allowed are"),
    "metadata": ('{"text": "x", "metadata": 1}', "line 2: metadata=1: allowed are True and False"),
    "same name": (
        '{"text": "x", "save_path": "0001.MP4"}',
        "line 2: save_path='0001.MP4' is also that of p.jsonl, line 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_line(tmp_path, case):
    line, message = WRONG[case]
    with pytest.raises(ValueError, match=f"^p.jsonl, {message}"):
        read(tmp_path / "p.jsonl", '{"text": "a cat"}\n' + line)


@pytest.mark.parametrize(
    "name",
    ["../v.mp4", "/v.mp4", "a/v.mp4", "a\\v.mp4", "C:v.mp4", "..", ".v.mp4", "-v.mp4", "v\n.mp4", "v\0.mp4", "", 5,
     "\ud800.mp4", "🐦" * 60 + ".mp4", None, ["v.mp4"]],
)  # fmt: skip
def test_names_stay_in_the_folder(name):
    with pytest.raises(ValueError, match=r"prompt 1: save_path=.*(a name inside of the folder|must end with)"):
        make_items([{"text": "x", "save_path": name}], SETTINGS, model_set=SMALL)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "a", r"must end with .txt .* or .jsonl"),
        ("p.txt", b"\xff", "is not UTF-8: invalid start byte at byte 0"),
        ("p.txt", " \n\n", "every line is blank"),
    ],
)
def test_wrong_file(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name, content)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "none.txt", SETTINGS, model_set=SMALL)
    with pytest.raises(ValueError, match="setting 'output_type' is unknown; allowed are bs, seed"):
        make_items(["x"], {"output_type": "pil"}, model_set=SMALL)
    with pytest.raises(ValueError, match="prompts='a cat': allowed is a list"):
        make_items("a cat", {}, model_set=SMALL)


def test_frames_in_between():
    """A line may ask for them; reports of items without them stay as they were."""
    asked = {"text": "a", "interpolate": 3, "interpolate_with": "ffmpeg"}
    smooth, plain = make_items([asked, "b"], {}, model_set=SMALL)
    assert (smooth.output.interpolate, smooth.output.fps, smooth.asked["interpolate"]) == (3, 24, 3)
    assert smooth.asked["interpolate_with"] == "ffmpeg"
    assert smooth.asked == make_items([{"text": "a", "interpolate": 3}], {}, model_set=SMALL)[0].asked
    assert not any("interpolate" in name for name in plain.asked)


def test_loras_of_a_line():
    """Names of those that the command has; where a line says nothing, the command's weights hold."""
    settings = {"loras": {"one": 1.0, "two": 0.5}, "seed": 3}
    lines = ["a", {"text": "b", "loras": {"two": 0.25}}, {"text": "c", "loras": {}}]
    items = make_items(lines, settings, model_set=SMALL)
    assert [item.job.loras for item in items] == [{"one": 1.0, "two": 0.5}, {"two": 0.25}, {}]
    assert items[1].asked["loras"] == {"two": 0.25}
    assert "loras" not in make_items(["a"], {}, model_set=SMALL)[0].asked  # reports of before go on
    for wrong, said in (
        ({"../three": 1}, "loras: '../three' is unknown; allowed are 'one', 'two'"),
        ({"one": "much"}, "weight of one='much': allowed is a finite number"),
        ({"one": 10**400}, "weight of one=10.*: allowed is a finite number"),
        ({"one": 1e300}, "allowed is a finite number of float32"),
        (["one"], "allowed is an object with a weight for each name"),
    ):
        with pytest.raises(ValueError, match=said):
            make_items([{"text": "a", "loras": wrong}], settings, model_set=SMALL)
    with pytest.raises(ValueError, match="'one' is unknown; allowed are none"):
        make_items([{"text": "a", "loras": {"one": 1}}], {}, model_set=SMALL)
