"""What ffmpeg says of a video file: which stream is its picture, and how that picture is meant to be shown.

ffprobe doesn't come with imageio-ffmpeg, so this reads what `ffmpeg -i` and the filter `showinfo` write for people, in
the forms of versions 7 to 9. What is not shown as a flat picture in colours that we know is refused here, with the
reason. A file is opened as one of `FORMATS` only: none of them is a list of other files.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kandinsky.errors import UnreadableVideoError
from kandinsky.ffmpeg.program import ffmpeg

PATIENCE = 600
"""Seconds that ffmpeg may take for one file."""
FORMATS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "vvc", "av1", "obu", "ivf", "vc1",
    "flv", "asf", "ogg", "nut", "mxf", "dv", "wtv", "rm", "gif", "apng", "webp_anim", "jpegxl_anim", "mjpeg",
    "yuv4mpegpipe", "image2", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "jpegxl_pipe", "ppm_pipe",
    "mp3", "flac", "wav", "aac", "aiff", "caf",
)  # fmt: skip
"""What a file may be, by ffmpeg's names; sounds, the last row, are opened so that the reason is what they lack."""
SDR = (
    "unknown", "reserved", "bt709", "smpte170m", "smpte240m", "bt470m", "bt470bg", "iec61966-2-1", "iec61966-2-4",
    "bt1361e", "bt2020-10", "bt2020-12",
)  # fmt: skip
"""Transfer characteristics of a picture that a common screen can show."""
HDR = ("smpte2084", "arib-std-b67")
"""Transfer characteristics of one that it cannot: PQ and HLG."""
MATRICES = ("unknown", "reserved", "gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc")
"""Those that ffmpeg's filter `scale` computes with; it takes any other for BT.601's, and says nothing."""
NOT_FLAT = re.compile(
    r"stereo ?3d: (?:type - )?(side by side|top and bottom|checkerboard|interleaved \w+|frame alternate)"
    r"|spherical(?: mapping)?: (\w+)",
    re.IGNORECASE,
)
"""Two views in one picture, or one that is all around."""
ALPHA = re.compile(r"rgba|bgra|argb|abgr|yuva|gbrap|ya\d|yaf|ayuv|vuya|pal8")
"""How names of pixel formats begin that have an alpha channel."""
NOT_YUV = re.compile(r".*(rgb|bgr|gbr)|gray|ya\d|yaf|mono|pal8|bayer|xyz")
"""How names of pixel formats begin that are RGB, gray or a palette."""
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""ffmpeg's own decoders of these leave out the alpha channel."""


@dataclass(frozen=True)
class Picture:
    """The picture of a file, turned upright.

    Args:
        stream: its number in the file.
        decoder: the one that reads it; None is ffmpeg's own choice.
        pixels: pixel format, by ffmpeg's name.
        width, height: pixels, of the first frame.
        aspect: width of a pixel over its height.
        matrix, primaries, transfer: of the colours, by ffmpeg's names, or "unknown".
        alpha: None without such a channel, else "straight" or, where colours are multiplied by it, "premultiplied".
        is_still: whether the file has one frame.
    """

    stream: int
    decoder: str | None
    pixels: str
    width: int
    height: int
    aspect: float
    matrix: str
    primaries: str
    transfer: str
    alpha: str | None
    is_still: bool

    @property
    def shown_size(self) -> tuple[float, float]:
        """Width and height as it is shown, in heights of a pixel."""
        return self.width * self.aspect, float(self.height)

    @property
    def is_hdr(self) -> bool:
        return self.transfer in HDR

    @property
    def is_yuv(self) -> bool:
        return not NOT_YUV.match(self.pixels)


def picture_of(path: Path) -> Picture:
    """Read a file's headers and its first frames.

    Raises:
        UnreadableVideoError: there is no picture, or none that can be shown as it is meant to be.
    """
    stream, decoder = _choose(listed(path))
    show = ("-map", f"0:{stream}", "-frames:v", "2", "-vf", "showinfo=checksum=0", "-f", "null")
    said = run_ffmpeg(path, *show, decoder=decoder).said
    frames = re.findall(r"\] n: *\d+ .* fmt:(\S+) .* sar:(\d+)/(\d+) s:(\d+)x(\d+) ", said)
    if not frames:
        raise UnreadableVideoError(complaint(said) or "no frame in it")
    if view := NOT_FLAT.search(said):
        raise UnreadableVideoError(f"not a flat picture ({view[1] or view[2]})")
    pixels, across, down, width, height = frames[0]
    colours = re.search(r"color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)", said)
    matrix, primaries, transfer = colours.groups() if colours else ("unknown",) * 3
    if transfer not in (*SDR, *HDR):
        raise UnreadableVideoError(f"colours with the transfer characteristics {transfer} are not read")
    if matrix not in MATRICES:
        raise UnreadableVideoError(f"colours with the matrix {matrix} are not read")
    alpha = "premultiplied" if "alpha_mode:premultiplied" in said else "straight"
    return Picture(
        stream=stream,
        decoder=decoder,
        pixels=pixels,
        width=int(width),
        height=int(height),
        aspect=int(across) / int(down) if int(across) and int(down) else 1.0,
        matrix=matrix,
        primaries=primaries,
        transfer=transfer,
        alpha=alpha if ALPHA.match(pixels) else None,
        is_still=len(frames) == 1,
    )


@dataclass(frozen=True)
class Stream:
    """A video stream as ffmpeg lists it: number, codec, and all that it says of it."""

    number: int
    codec: str
    text: str

    def is_marked(self, mark: str) -> bool:
        """Whether the stream has a mark (a "disposition"), such as "default"."""
        return f"({mark})" in self.text.partition("\n")[0]


def listed(path: Path) -> list[Stream]:
    """The video streams of a file.

    Raises:
        UnreadableVideoError: it cannot be opened, or is not one picture after the other.
    """
    said = run_ffmpeg(path).said
    if "Format not on whitelist" in said:
        raise UnreadableVideoError("none of the kinds of file that are read as a video")
    if "] Input #0" not in said:
        raise UnreadableVideoError(complaint(said) or "not a video that ffmpeg reads")
    if "Tile Grid:" in said:
        raise UnreadableVideoError("its picture is put together of tiles, which is not read")
    if re.search(r"DOVI configuration record.*profile: 5\b", said):
        raise UnreadableVideoError("its colours are Dolby Vision's own (profile 5), which are not read")
    parts = re.split(r"^\[info\] +Stream #0:", said, flags=re.MULTILINE)[1:]
    heads = ((re.match(r"(\d+)(?:\[\w+\])?(?:\([^)\n]*\))?: Video: (\w+)", part), part) for part in parts)
    return [Stream(int(head[1]), head[2], part) for head, part in heads if head]


def _choose(streams: list[Stream]) -> tuple[int, str | None]:
    """Number of the stream that players show, and the decoder for it if it needs one of its own."""
    if not streams:
        raise UnreadableVideoError("no video stream in it")
    shown = [s for s in streams if not any(map(s.is_marked, ("attached pic", "timed thumbnails", "dependent")))]
    if not shown:
        raise UnreadableVideoError("no video stream in it but an attached picture, such as the cover of a sound file")
    stream = next((each for each in shown if each.is_marked("default")), shown[0])
    with_alpha = re.search(r"^\[info\] +alpha_mode +: 1", stream.text, flags=re.MULTILINE | re.IGNORECASE)
    return stream.number, ALPHA_DECODERS.get(stream.codec) if with_alpha else None


@dataclass(frozen=True)
class Done:
    """What a run of ffmpeg gave: exit status, output, and what it said, with each line's level."""

    status: int
    output: bytes
    said: str


def run_ffmpeg(path: Path, *wanted: str, decoder: str | None = None) -> Done:
    """Run ffmpeg on a file until its first error; without anything wanted it says which streams there are.

    Raises:
        UnreadableVideoError: it takes too long.
    """
    file = f"file:{path}"
    source = ["-hide_banner", "-nostats", "-nostdin", "-v", "level+info", "-xerror"]
    source += ["-format_whitelist", ",".join(FORMATS), *(() if decoder is None else ("-c:v", decoder)), "-i", file]
    command = [ffmpeg(), *source, *wanted, *(["-"] if wanted else [])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise UnreadableVideoError(f"not read in {PATIENCE} s") from None
    said = done.stderr.replace(os.fsencode(file), b"it")  # a name could look like something that ffmpeg says
    return Done(done.returncode, done.stdout, said.decode(errors="replace"))


def complaint(said: str) -> str:
    """The first errors in what ffmpeg said."""
    found = re.findall(r"^(?:\[[^\]\n]* @ \w+\] )?\[(?:error|fatal|panic)\] (.+)$", said, flags=re.MULTILINE)
    telling = [
        line.strip() for line in found if not line.startswith(("At least one output", "Error opening input file"))
    ]
    return "; ".join(telling[:3])
