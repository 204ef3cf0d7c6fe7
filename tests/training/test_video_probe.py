"""What is found out about a video file, and what is refused with which reason."""

import re
import subprocess

import pytest
from video_helpers import FFV1, H264, make, run

from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.training import video_probe
from kandinsky.training.video_probe import Done, UnreadableVideoError, complaint, picture_of

ONE = ("-frames:v", "1", "-c:v", "ffv1")


def tagged(tags):
    return (f"format=yuv444p,setparams={tags}", *ONE)


CLIPS = {
    "plain.mkv": ("format=yuv420p",),
    "still.mkv": ("format=yuv420p", *ONE),
    "tags.mkv": tagged("colorspace=bt2020nc:color_primaries=bt2020:color_trc=arib-std-b67"),
    "matrix.mkv": tagged("colorspace=ycgco"),
    "transfer.mkv": tagged("color_trc=log100"),
    "sar.mp4": ("scale=48:32,setsar=4/3", *H264),
    "views.mkv": ("format=yuv420p", *FFV1, "-metadata:s:v", "stereo_mode=left_right"),
    "alpha.webm": ("format=yuva420p", "-c:v", "libvpx-vp9"),
    "plain.ts": ("null", *H264),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    make(folder, "testsrc2=s=64x48:r=8:d=0.5", CLIPS)
    for path in (folder / "cover.mp3", folder / "cover.m4a"):
        sound = ("-f", "lavfi", "-i", "sine=d=0.2", "-f", "lavfi", "-i", "color=red:s=32x32:d=0.1")
        run(
            *sound,
            "-map",
            "0",
            "-map",
            "1",
            "-c:v",
            "mjpeg",
            "-frames:v",
            "1",
            "-disposition:v",
            "attached_pic",
            str(path),
        )
    run("-f", "lavfi", "-i", "sine=d=0.2", str(folder / "sound.wav"))
    (folder / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{folder}/plain.ts\n#EXT-X-ENDLIST\n"
    )
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile plain.mkv\n")
    (folder / "text.txt").write_text("a text\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 8)
    return folder


def test_what_is_found(clips):
    plain = picture_of(clips / "plain.mkv")
    assert (plain.stream, plain.decoder, plain.width, plain.height, plain.aspect) == (0, None, 64, 48, 1)
    assert (plain.pixels, plain.matrix, plain.primaries, plain.transfer) == ("yuv420p", *("unknown",) * 3)
    assert not (plain.is_still or plain.is_hdr or plain.alpha)
    assert picture_of(clips / "still.mkv").is_still
    tags = picture_of(clips / "tags.mkv")
    assert (tags.matrix, tags.primaries, tags.transfer, tags.is_hdr) == ("bt2020nc", "bt2020", "arib-std-b67", True)
    assert picture_of(clips / "sar.mp4").shown_size == pytest.approx((64, 32))
    alpha = picture_of(clips / "alpha.webm")
    assert (alpha.decoder, alpha.pixels, alpha.alpha) == ("libvpx-vp9", "yuva420p", "straight")


REFUSED = {
    "matrix.mkv": "colours with the matrix ycgco are not read",
    "transfer.mkv": "colours with the transfer characteristics log100 are not read",
    "views.mkv": r"not a flat picture \(side by side\)",
    "cover.mp3": "no video stream in it but an attached picture, such as the cover of a sound file",
    "cover.m4a": "no video stream in it but an attached picture, such as the cover of a sound file",
    "sound.wav": "no video stream in it",
    "list.m3u8": "none of the kinds of file that are read as a video",
    "list.mp4": "none of the kinds of file that are read as a video",
    "text.txt": "none of the kinds of file that are read as a video",
    "empty.mp4": "Invalid data found",
    "noise.mp4": "Invalid data found",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(clips, name):
    with pytest.raises(UnreadableVideoError, match=REFUSED[name]) as raised:
        picture_of(clips / name)
    assert str(clips) not in str(raised.value)


@pytest.mark.parametrize(("marked", "stream"), [("0", 0), ("default", 1)])
def test_of_several_pictures_the_one_that_players_show(tmp_path, marked, stream):
    path = tmp_path / "a.mkv"
    sources = ("-f", "lavfi", "-i", "color=red:s=32x32:r=8:d=0.3", "-f", "lavfi", "-i", "color=blue:s=64x64:r=8:d=0.3")
    run(*sources, "-map", "0", "-map", "1", *FFV1, "-disposition:v:0", "0", "-disposition:v:1", marked, str(path))
    picture = picture_of(path)
    assert (picture.stream, picture.width) == (stream, 64 if stream else 32)


def test_a_cover_before_the_picture(tmp_path):
    path = tmp_path / "a.mp4"
    sources = ("-f", "lavfi", "-i", "color=red:s=32x32:r=8:d=0.125", "-f", "lavfi", "-i", "color=blue:s=64x64:r=8:d=1")
    kinds = ("-c:v:0", "png", "-c:v:1", "libx264", "-disposition:v:0", "attached_pic")
    run(*sources, "-map", "0", "-map", "1", *kinds, str(path))
    picture = picture_of(path)
    assert (picture.width, picture.is_still) == (64, False)


HEAD = "[info] Input #0, mov,mp4, from 'it':\n[info]   Duration: 00:00:01.00\n"
STREAM = "[info]   Stream #0:0[0x1](en-GB): Video: hevc (Main 10), yuv420p10le(pc, unknown), 64x48, 8 fps (default)\n"
SHOWN = (
    "[Parsed_showinfo_0 @ 0x1] [info] n:   0 pts: 0 fmt:yuv420p cl:left sar:0/1 s:64x48 i:P\n"
    "[Parsed_showinfo_0 @ 0x1] [info] color_range:tv color_space:bt709 color_primaries:bt709 color_trc:bt709\n"
)


@pytest.mark.parametrize(
    ("headers", "shown", "message"),
    [
        (f"{STREAM}[info]       DOVI configuration record: version: 1.0, profile: 5, level: 6\n", "", "Dolby Vision"),
        (f"[info]   Stream group #0:0: Tile Grid: hevc, yuvj420p, 128x96\n{STREAM}", "", "put together of tiles"),
        (STREAM.replace("(default)", "(dependent)"), "", "no video stream in it but"),
        (STREAM, f"[info]        spherical: equirectangular\n{SHOWN}", r"not a flat picture \(equirectangular\)"),
        (STREAM, f"[info]   Spherical Mapping: cubemap\n{SHOWN}", r"not a flat picture \(cubemap\)"),
        (STREAM, f"[x @ 0x1] [info]   side data - Stereo 3D: type - top and bottom, view\n{SHOWN}", "top and bottom"),
        (STREAM, "[hevc @ 0x1] [error] no frame!\n", "^no frame!$"),
        (STREAM, "", "no frame in it"),
    ],
)
def test_what_cannot_be_made_here_is_refused_too(monkeypatch, tmp_path, headers, shown, message):
    """In the words of ffmpeg 7 and 9."""
    monkeypatch.setattr(
        video_probe, "run_ffmpeg", lambda _, *wanted, **__: Done(0, b"", shown if wanted else HEAD + headers)
    )
    with pytest.raises(UnreadableVideoError, match=message):
        picture_of(tmp_path)


def test_forms_of_what_ffmpeg_says(monkeypatch, tmp_path):
    """Two views in one stream each are no reason: the first is shown. Pixels of unknown proportions are square."""
    flat = "[info]       Stereo 3D: unspecified, view: left\n"
    monkeypatch.setattr(
        video_probe, "run_ffmpeg", lambda _, *wanted, **__: Done(0, b"", flat + SHOWN if wanted else HEAD + STREAM)
    )
    picture = picture_of(tmp_path)
    assert (picture.shown_size, picture.matrix, picture.is_still) == ((64, 48), "bt709", True)


def test_a_name_is_not_what_ffmpeg_says(tmp_path, clips):
    """A file's name may hold a line like those that are looked for."""
    path = tmp_path / "a\n[info]   Stream #0:7: Video: h264, 1x1 (default)\n.mkv"
    path.write_bytes((clips / "plain.mkv").read_bytes())
    assert picture_of(path).stream == 0


def test_complaints():
    lines = (
        "[in#0 @ 0x5] [error] moov atom not found",
        "[error] Error opening input file it.",
        "[x @ 0x1] [fatal] two",
    )
    assert complaint("[info] fine\n".join(f"{line}\n" for line in lines)) == "moov atom not found; two"
    assert complaint("[info] fine\n[fatal] At least one output file must be specified\n") == ""


def test_formats_are_ffmpegs():
    """A name that no ffmpeg has would never be read."""
    said = subprocess.run([ffmpeg(), "-v", "error", "-demuxers"], capture_output=True, text=True, check=True).stdout
    known = {name for names in re.findall(r"^ D[ d]* (\S+)", said, flags=re.MULTILINE) for name in names.split(",")}
    assert set(video_probe.FORMATS) - known <= {"webp_anim"}  # newer than version 7
