"""What is taken from a record, and what from the options of whoever makes or finishes the file."""

import dataclasses

import pytest
from fakes import RECORD

from kandinsky.output.as_recorded import as_recorded
from kandinsky.output.options import OutputOptions

VP9 = dataclasses.replace(RECORD, fps=12, codec="vp9", crf=30)
HEVC = dataclasses.replace(RECORD, fps=12, codec="hevc", crf=30)
GIF = dataclasses.replace(RECORD, fps=12, codec=None, crf=None)


@pytest.mark.parametrize(
    ("record", "name", "given", "expected"),
    [
        (VP9, "v.webm", {}, ("vp9", 30)),
        (VP9, "v.mkv", {}, ("vp9", 30)),  # another ending that may have it
        (VP9, "v.MKV", {}, ("vp9", 30)),
        (HEVC, "v.MP4", {}, ("hevc", 30)),
        (HEVC, "v.mov", {"crf": 12}, ("hevc", 12)),  # a crf of one's own keeps the codec
        (HEVC, "v.mov", {"codec": "hevc"}, ("hevc", 30)),
        (HEVC, "v.mov", {"codec": "h264"}, ("h264", None)),  # whose crf is another scale
        (HEVC, "v.mov", {"codec": "h264", "crf": 12}, ("h264", 12)),
        (HEVC, "v.webm", {}, (None, None)),
        (HEVC, "v.webm", {"codec": "hevc"}, ("hevc", None)),  # which is refused for what was given
        (HEVC, "v.gif", {}, (None, None)),
        (HEVC, "frames/", {}, (None, None)),
        (GIF, "v.mp4", {}, (None, None)),
    ],
)
def test_codec_and_crf(record, name, given, expected):
    found = as_recorded(OutputOptions(type="file", **given), record, name)
    assert (found.codec, found.crf) == expected
    assert (found.type, found.fps, found.metadata) == ("file", 12, True)


def test_frames_per_second():
    assert as_recorded(OutputOptions(), VP9, "v.webm").fps == 12
    assert as_recorded(OutputOptions(fps=24), VP9, "v.webm").fps == 24


def test_an_image_has_none_of_it():
    """Whatever a record says, which anybody may have written."""
    given = OutputOptions(type="file", metadata=False)
    assert as_recorded(given, dataclasses.replace(VP9, time_length=0), "i.png") == given


def test_a_path_is_a_path():
    with pytest.raises(ValueError, match="save_path=3: allowed is a path of text"):
        as_recorded(OutputOptions(), VP9, 3)


def test_frames_in_between():
    smooth = dataclasses.replace(VP9, interpolate=3, interpolate_with="network")
    for given, expected in (
        (OutputOptions(), (3, "network")),
        (OutputOptions(interpolate=2), (2, None)),
        (OutputOptions(interpolate=2, interpolate_with="ffmpeg"), (2, "ffmpeg")),
    ):
        found = as_recorded(given, smooth, "v.webm")
        assert (found.interpolate, found.interpolate_with) == expected
