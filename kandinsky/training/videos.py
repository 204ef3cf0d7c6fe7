"""Frames of a video file as a model set wants them: its frame rate, one of its sizes, whole seconds.

The picture is taken as a player shows it: upright, with square pixels, without the comb of interlaced fields, over
black where it is transparent, in the colours and the brightness of BT.709. ffmpeg does the work, at once for a whole
clip. A file that it complains about is refused, not repaired: a clip with damaged frames would be trained on. Doesn't
look for cuts between scenes, nor at ICC profiles.
"""

import math
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.config import ModelSet
from kandinsky.errors import UnreadableVideoError
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.training.video_probe import Picture, complaint, picture_of, run_ffmpeg
from kandinsky.video_shape import VideoShape

WHITE, PEAK = 203, 1000
"""cd/m2 of white paper in HDR (ITU-R BT.2408), and of what becomes the brightest white."""
WIDE = ("bt2020", "smpte428", "smpte431", "smpte432")
"""Primaries whose colours turn dull where they are taken for BT.709's; between those of television nobody sees it."""
HD = (1280, 576)
"""A longer side from the first on, or a shorter one above the second, means BT.709's matrix where none is named."""
EXACT = "accurate_rnd+full_chroma_int"
"""Without these flags ffmpeg makes RGB of YUV fast, and white 253."""
SMALLEST_FIELDS = 4
"""Pixels; the filter that makes frames of fields refuses pictures of less than 3."""


def read_clip(path: Path, model_set: ModelSet, *, seconds: Sequence[int] | None = None) -> Tensor:
    """The beginning of a video, cut to its middle so that it has the proportions of the nearest allowed size, resized.

    A clip of n seconds has a frame more than n seconds of film (`frames_of`). Where exactly this one frame is missing,
    the last is repeated; a clip that lacks more is taken for the next shorter length.

    Args:
        model_set: tells frame rate and sizes.
        seconds: allowed lengths, of which the longest that the video has is taken; every whole second if None.

    Returns:
        uint8 `[frames, height, width, 3]`: one frame of a still, else `frames_of` a length.

    Raises:
        UnreadableVideoError: the file is missing, damaged, no video, too short, or cannot be shown as meant.
    """
    try:
        if not path.is_file():
            raise UnreadableVideoError("no such file")
        picture = picture_of(path)
        allowed = sorted(seconds if seconds is not None else range(1, model_set.max_seconds + 1))
        size = nearest_size(picture.shown_size, model_set.sizes)
        most = 1 if picture.is_still else frames_of(allowed[-1], model_set)
        frames = _frames(path, picture, size, fps=model_set.fps, most=most)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UnreadableVideoError(error.strerror or str(error)) from error
    return frames if picture.is_still else _whole_seconds(frames, allowed, model_set)


def _whole_seconds(frames: Tensor, allowed: Sequence[int], model_set: ModelSet) -> Tensor:
    """As many frames as the longest of the allowed lengths has that is there; see `read_clip`."""
    fitting = [length for length in allowed if frames_of(length, model_set) <= len(frames) + 1]
    if not fitting:
        long = len(frames) / model_set.fps
        raise UnreadableVideoError(f"too short: it is {long:g} s long, the shortest that is taken is {allowed[0]} s")
    wanted = frames_of(fitting[-1], model_set)
    return frames[:wanted] if wanted <= len(frames) else torch.cat([frames, frames[-1:]])


def frames_of(seconds: int, model_set: ModelSet) -> int:
    """Frames of a clip, as many as its latent frames decode to."""
    return VideoShape.from_request(seconds, None, None, model_set=model_set).num_frames


def nearest_size(size: tuple[float, float], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of (width, height) pairs the one whose proportions are nearest to those of `size`."""
    return min(sizes, key=lambda each: abs(math.log(each[0] * size[1] / (each[1] * size[0]))))


def _frames(path: Path, picture: Picture, size: tuple[int, int], *, fps: int, most: int) -> Tensor:
    """Up to `most` frames, uint8 `[frames, height, width, 3]`."""
    width, height = size
    target = ("-frames:v", str(most), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24")
    filters = ",".join(filters_of(picture, size, fps=fps))
    done = run_ffmpeg(path, "-map", f"0:{picture.stream}", "-vf", filters, *target, decoder=picture.decoder)
    if done.status or not done.output:
        why = complaint(done.said) or f"ffmpeg ended with status {done.status} and no frame"
        raise UnreadableVideoError(why)
    return torch.frombuffer(bytearray(done.output), dtype=torch.uint8).view(-1, height, width, 3)


def filters_of(picture: Picture, size: tuple[int, int], *, fps: int) -> list[str]:
    """ffmpeg's filters from a picture to frames of `size` (width, height).

    Raises:
        UnreadableVideoError: the picture needs filters that this ffmpeg does not have.
    """
    width, height = size
    matrix = _matrix(picture)
    # Frames that are not marked as interlaced pass. No RGB is interlaced, and of it the filter wants other formats.
    has_fields = picture.is_yuv and min(picture.width, picture.height) > SMALLEST_FIELDS
    fields = ["bwdif=mode=send_frame:deint=interlaced"] if has_fields else []
    blend = [] if picture.alpha is None else [f"scale=flags={EXACT}:{matrix}", "format=gbrap16le"]
    blend += ["premultiply=inplace=1"] if picture.alpha == "straight" else []
    # Cut before it is resized: a picture of 2x10000 pixels would else become one of gigabytes.
    cut = f"crop='min(iw,ih*{width}/{height}/sar)':'min(ih,iw*sar*{height}/{width})':exact=1"
    resize = f"scale={width}:{height}:flags=area+{EXACT}:{matrix}"
    return [*fields, f"fps={fps}:eof_action=pass", *blend, cut, resize, *_to_bt709(picture), "format=rgb24"]


def _matrix(picture: Picture) -> str:
    """An option of `scale`: how to take YUV that does not name its matrix; ffmpeg's own guess is BT.601's."""
    named = not picture.is_yuv or picture.matrix not in ("unknown", "reserved")
    sides = sorted((picture.width, picture.height))
    is_hd = sides[1] >= HD[0] or sides[0] > HD[1]
    guess = "bt2020" if picture.is_hdr else "bt709" if is_hd else "bt601"
    return f"in_color_matrix={'auto' if named else guess}"


def _to_bt709(picture: Picture) -> list[str]:
    """Filters for a picture with colours or a brightness that BT.709 does not have; none for most.

    HDR: white paper becomes nearly white, what is brighter is squeezed into the rest; below a third of it nothing
    changes.
    """
    if not picture.is_hdr and picture.primaries not in WIDE:
        return []
    lacking = {"zscale", "tonemap"} - _filters(ffmpeg())
    if lacking:
        why = f"HDR ({picture.transfer})" if picture.is_hdr else f"wide colours ({picture.primaries})"
        raise UnreadableVideoError(f"{why}, and this ffmpeg has no filter {min(lacking)!r} to make it SDR")
    transfer = picture.transfer if picture.is_hdr else "bt709"
    primaries = picture.primaries if picture.primaries not in ("unknown", "reserved") else "bt2020"
    given = f"matrixin=gbr:rangein=full:transferin={transfer}:primariesin={primaries}"
    light = f"zscale={given}:matrix=gbr:range=full:transfer=linear:primaries=bt709:npl={WHITE}"
    squeezed = [f"tonemap=mobius:peak={PEAK / WHITE}"] if picture.is_hdr else []
    return ["format=gbrp16le", light, "format=gbrpf32le", *squeezed, "zscale=transfer=bt709:matrix=gbr:range=full"]


@cache
def _filters(program: str) -> frozenset[str]:
    """Names of the filters that an ffmpeg has."""
    said = subprocess.run([program, "-v", "error", "-filters"], capture_output=True, text=True, check=False).stdout
    return frozenset(re.findall(r"^ \S+ (\w+) +\S+->\S+", said, flags=re.MULTILINE))
