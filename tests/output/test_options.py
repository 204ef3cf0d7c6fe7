"""What a call gives back, by its options and its path; what is refused, from the arguments alone."""

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from kandinsky.output.image import JPEG_PROMPT, ImageWriter
from kandinsky.output.options import KINDS, Output, OutputOptions, check_prompt_fits, open_writer, output_of
from kandinsky.output.video import VideoWriter


def of(save_path="v.mp4", *, is_image=False, return_frames=False, **options):
    return output_of(save_path, OutputOptions(**options), is_image=is_image, model_fps=8, return_frames=return_frames)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v.mp4", {}, (8, 5, "h264")),
        ("v.mov", {"fps": 120, "crf": 51}, (120, 51, "h264")),
        ("v.mp4", {"codec": "hevc"}, (8, 10, "hevc")),
        ("v.mkv", {"codec": "vp9", "crf": 63}, (8, 63, "vp9")),
        ("v.WEBM", {"fps": np.int64(24)}, (24, 15, "vp9")),
        ("v.gif", {}, (8, None, None)),
        ("v.webp", {"fps": 1}, (1, None, None)),
        ("frames/", {}, (8, None, None)),
    ],
)
def test_files_of_videos(name, options, expected):
    output, path = of(name, **options)
    assert (output.kind, output.metadata) == ("file", True)
    assert (output.fps, output.crf, output.codec) == expected
    assert path == Path(name)


def test_files_of_images():
    output, path = of("i.webp", is_image=True, metadata=False)
    assert output == Output(kind="file", fps=None, crf=None, codec=None, metadata=False)
    assert path == Path("i.webp")


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("save_path", ["v.mp4", None, "an ending that no file has"])
def test_what_is_returned_has_no_path(kind, save_path):
    assert of(save_path, type=kind) == (Output(kind=kind, fps=None, crf=None, codec=None, metadata=True), None)


def test_the_published_argument_means_pil():
    assert of(return_frames=True)[0].kind == of(type="pil")[0].kind == "pil"
    assert of(return_frames=True, type="pil")[0].kind == "pil"


WRONG = {
    "output_type": ({"type": "gif"}, "output_type='gif': allowed are 'file', 'pil', 'np', 'pt', 'latent'"),
    "both": ({"type": "np", "return_frames": True}, "output_type='np': with return_frames=True allowed are"),
    "fps": ({"fps": 0}, "fps=0: allowed is 1 to 120"),
    "fps fraction": ({"fps": 7.5}, "fps=7.5: must be a whole number"),
    "crf": ({"crf": 52}, "crf=52: allowed is 0 to 51"),
    "crf of vp9": ({"save_path": "v.webm", "crf": 64}, "crf=64: allowed is 0 to 63"),
    "codec": ({"codec": "av1"}, "codec='av1': in a .mp4 file allowed are 'h264', 'hevc'"),
    "codec of the ending": ({"save_path": "v.webm", "codec": "h264"}, "in a .webm file allowed are 'vp9'"),
    "crf of a gif": ({"save_path": "v.gif", "crf": 5}, "crf=5: a .gif has none"),
    "codec of frames": ({"save_path": "f/", "codec": "h264"}, "codec='h264': a folder of png frames has none"),
    "fps of an image": ({"save_path": "i.png", "is_image": True, "fps": 8}, "fps=8: time_length=0 makes an image"),
    "fps of frames": ({"type": "pil", "fps": 8}, "fps=8: nothing is written"),
    "png of a video": ({"save_path": "v.png"}, "or with / for a folder of png frames"),
    "folder with an ending": ({"save_path": "v.mp4/"}, "must have a name without an ending"),
    "metadata": ({"metadata": "no"}, "metadata='no': allowed are True and False"),
    "no path": ({"save_path": None}, "save_path=None: allowed with output_type='file' is a path"),
    "not a path": ({"save_path": 3}, "save_path=3: allowed is a path of text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        of(**arguments)


def test_lossless_h264_is_warned_of():
    with pytest.warns(UserWarning, match="crf=0: lossless h264, which browsers and QuickTime do not play"):
        of(crf=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of(crf=1)[0].crf == 1
        assert of(crf=0, codec="hevc")[0].crf == 0


def test_a_jpg_has_room_for_so_long_a_prompt():
    longest = "ö" * (JPEG_PROMPT // 2 - 1)  # of two bytes, and quotation marks around them
    check_prompt_fits(Path("i.jpg"), longest)
    check_prompt_fits(Path("i.png"), longest + "ö")
    for ending in (".jpg", ".JPEG"):
        with pytest.raises(ValueError, match=f"no room for a record with this prompt of {JPEG_PROMPT + 2} bytes"):
            check_prompt_fits(Path(f"i{ending}"), longest + "ö")


@pytest.mark.parametrize(
    ("name", "is_image", "kind"),
    [
        ("v.mp4", False, VideoWriter),
        ("v.gif", False, ImageWriter),
        ("frames/", False, ImageWriter),
        ("i.png", True, ImageWriter),
    ],
)
def test_each_kind_of_file_has_its_writer(tmp_path, name, is_image, kind):
    """What is written there comes back: one frame more than in an image would be left out."""
    output, path = of(f"{tmp_path}/{name}", is_image=is_image)
    frames = np.zeros((1 if is_image else 3, 32, 32, 3), np.uint8)
    with open_writer(path, output, width=32, height=32, comment=None) as writer:
        assert isinstance(writer, kind)
        writer.write(frames)
        writer.finish()
    assert writer.num_frames == len(frames)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_options_are_frozen():
    for value in (OutputOptions(), of()[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.fps = 9


def test_frames_in_between():
    """More frames a second for the same length; who asks for another `fps` gets it."""
    output, _ = of(interpolate=3)
    assert (output.fps, output.interpolate, output.interpolate_with) == (24, 3, "ffmpeg")
    assert of(interpolate=4, fps=8, interpolate_with="network")[0].fps == 8
    assert of(type="np", interpolate=2, interpolate_with="network")[0].interpolate_with == "network"
    assert of()[0].interpolate is of()[0].interpolate_with is None
    assert type(of(interpolate=np.int64(2))[0].interpolate) is int  # a record is JSON


@pytest.mark.parametrize(
    ("options", "is_image", "message"),
    [
        ({"interpolate": 5}, False, "interpolate=5: allowed are 2, 3, 4"),
        ({"interpolate": 2.0}, False, "interpolate=2.0: allowed are 2, 3, 4"),
        ({"interpolate": 1}, False, "interpolate=1: allowed are 2, 3, 4"),
        (
            {"interpolate": 2, "interpolate_with": "magic"},
            False,
            "interpolate_with='magic': allowed are 'ffmpeg', 'network'",
        ),
        ({"interpolate_with": "ffmpeg"}, False, "interpolate_with='ffmpeg': it is for interpolate=2, 3 or 4"),
        ({"interpolate": 2}, True, "interpolate=2: time_length=0 makes an image: it is for videos"),
        ({"interpolate": 2, "type": "latent"}, False, "interpolate=2: latents are returned before there are frames"),
    ],
)
def test_frames_in_between_that_cannot_be(options, is_image, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        of("v.png" if is_image else "v.mp4", is_image=is_image, **options)
