"""Frames of video files: as a player shows them, as many as a length has."""

import numpy as np
import pytest
import torch
from video_helpers import H264, SIZES, make, run, write_video

from kandinsky.config import FLASH_512
from kandinsky.output.video import VideoWriter
from kandinsky.training import videos
from kandinsky.training.video_probe import UnreadableVideoError
from kandinsky.training.videos import frames_of, nearest_size, read_clip

COLOUR = (200, 100, 50)
SDR = "matrixin=gbr:rangein=full:transferin=bt709:primariesin=bt709"
"""What `zscale` reads."""
STILL = ("-frames:v", "1", "-c:v", "ffv1")


def yuv(matrix, pixels="yuv444p", *, scale_range="tv", tagged=True):
    """The filters that make YUV of one matrix, and say so or not."""
    tags = f"colorspace={matrix}:range={scale_range}" if tagged else "colorspace=unknown"
    made = f"out_color_matrix={matrix.removesuffix('nc')}:out_range={scale_range}:flags=accurate_rnd+full_chroma_int"
    return f"scale={made},format={pixels},setparams={tags}"


HALF = "format=rgba,colorchannelmixer=aa=0.5"
COLOURS = {
    "bt709.mkv": (yuv("bt709"), *STILL),
    "bt601.mkv": (yuv("smpte170m"), *STILL),
    "bt2020.mkv": (yuv("bt2020nc"), *STILL),
    "full range.mkv": (yuv("bt709", scale_range="pc"), *STILL),
    "yuvj.mkv": ("scale=out_range=pc,format=yuvj444p", "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "1"),
    "10 bit.mkv": (yuv("bt709", "yuv420p10le"), *STILL),
    "sd without a matrix.mkv": (yuv("smpte170m", tagged=False), *STILL),
    "hd without a matrix.mkv": (f"scale=1280:720,{yuv('bt709', tagged=False)}", *STILL),
    "odd.mkv": (f"scale=63:65,{yuv('smpte170m')}", *STILL),
    "one pixel.mkv": (f"scale=1:1,{yuv('smpte170m')}", *STILL),
    "thin.mkv": ("scale=2:4000,format=rgb24", "-frames:v", "1", "-c:v", "png"),
    "palette.gif": ("split[a][b];[a]palettegen[p];[b][p]paletteuse", "-frames:v", "1"),
    "bt2020 primaries.mkv": (
        f"format=gbrp16le,zscale={SDR}:matrix=bt2020nc:primaries=bt2020:transfer=bt2020-10:range=tv,format=yuv444p10le",
        *STILL,
    ),
}
OPACITY = {
    "alpha.mkv": (HALF, *STILL),
    "alpha.png": (HALF, "-frames:v", "1"),
    "alpha.webm": (f"{HALF},format=yuva420p", "-frames:v", "1", "-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "0"),
    "alpha.mov": (f"{HALF},format=yuva444p10le", "-frames:v", "1", "-c:v", "prores_ks", "-profile:v", "4444"),
}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coloured")
    make(folder, "color=0xC86432:s=64x64:r=8:d=0.25,format=rgb24", COLOURS | OPACITY)
    return folder


@pytest.mark.parametrize("name", [*COLOURS, *OPACITY])
def test_colours_are_those_that_are_shown(coloured, name):
    frames = read_clip(coloured / name, SIZES)
    assert frames.shape[0] == 1
    expected = torch.tensor(COLOUR) / (2 if name in OPACITY else 1)
    assert (frames.float().mean((0, 1, 2)) - expected).abs().max() < 2.5
    assert frames.flatten(0, 2).float().std(0).max() < 1


def test_white_is_white(tmp_path):
    make(tmp_path, "color=white:s=64x64:r=8:d=0.25", {"white.mkv": (yuv("bt709", "yuv420p"), *STILL)})
    assert read_clip(tmp_path / "white.mkv", SIZES).min() == 255


def test_our_own_videos_keep_their_colours(tmp_path):
    """They name no matrix; one that is upright and higher than SD is not taken for HD."""
    with VideoWriter(tmp_path / "a.mp4", width=352, height=736, fps=8) as writer:
        writer.write(np.full((9, 736, 352, 3), COLOUR, np.uint8))
        writer.finish()
    frames = read_clip(tmp_path / "a.mp4", FLASH_512)
    assert frames.shape == (9, 736, 352, 3)
    assert (frames.float() - torch.tensor(COLOUR)).abs().max() < 4


def to_hdr(transfer):
    """The filters that make HDR of SDR, whose white becomes 203 cd/m2."""
    light = f"zscale={SDR}:matrix=gbr:range=full:transfer=linear:primaries=bt2020:npl=203,format=gbrpf32le"
    return f"format=gbrp16le,{light},zscale=transfer={transfer}:npl=203:matrix=bt2020nc:range=tv,format=yuv420p10le"


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_becomes_sdr(tmp_path, transfer, monkeypatch):
    """What is darker than a third of white paper comes back as it was; paper is nearly white."""
    bars = "color=0x404040:s=96x64:r=8:d=0.25,format=rgb24,drawbox=x=32:w=32:h=ih:t=fill:color=0x800000"
    make(tmp_path, f"{bars},drawbox=x=64:w=32:h=ih:t=fill:color=white", {"hdr.mkv": (to_hdr(transfer), *STILL)})
    frame = read_clip(tmp_path / "hdr.mkv", SIZES)[0].float()  # 48 wide
    for x, colour in ((8, (64, 64, 64)), (24, (128, 0, 0))):
        assert (frame[16, x] - torch.tensor(colour)).abs().max() < 8, frame[16, x]
    assert 225 < frame[16, 40].min() <= frame[16, 40].max() < 245
    monkeypatch.setattr(videos, "_filters", lambda _: frozenset({"tonemap"}))
    with pytest.raises(UnreadableVideoError, match=rf"HDR \({transfer}\), and this ffmpeg has no filter 'zscale'"):
        read_clip(tmp_path / "hdr.mkv", SIZES)


def test_hdr_light_ends_in_white(tmp_path):
    """1,000 cd/m2 in PQ; no primaries and no matrix are named."""
    levels = "geq=lum=723:cb=512:cr=512,setparams=color_trc=smpte2084"
    make(tmp_path, "color=black:s=64x64:r=8:d=0.25,format=yuv420p10le", {"light.mkv": (levels, *STILL)})
    assert read_clip(tmp_path / "light.mkv", SIZES).min() > 252


LEFT = "drawbox=x=0:w=iw/3:h=ih:t=fill:color=red"


@pytest.fixture(scope="module")
def stretched(tmp_path_factory):
    """Blue with the left third red, in pixels that are not square."""
    folder = tmp_path_factory.mktemp("stretched")
    clips = {
        "wide pixels.mp4": f"scale=24:24,setsar=3/2,{LEFT}",
        "narrow pixels.mp4": f"scale=96:32,setsar=1/3,{LEFT}",
        "square.mp4": f"scale=48:32,setsar=1,{LEFT}",
        "cut.mp4": f"scale=96:32,setsar=1,{LEFT}",
    }
    make(folder, "color=blue:s=96x96:r=8:d=0.25", {name: (f, "-frames:v", "1", *H264) for name, f in clips.items()})
    run("-display_rotation", "90", "-i", str(folder / "wide pixels.mp4"), "-c", "copy", str(folder / "turned.mp4"))
    return folder


@pytest.mark.parametrize(
    ("name", "size", "red"),
    [("wide pixels.mp4", (48, 32), 16), ("narrow pixels.mp4", (32, 32), 32 / 3), ("square.mp4", (48, 32), 16),
     ("cut.mp4", (48, 32), 8)],
)  # fmt: skip
def test_pixels_that_are_not_square(stretched, name, size, red):
    frame = read_clip(stretched / name, SIZES)[0].float()
    assert frame.shape == (size[1], size[0], 3)
    assert (frame[..., 0] / 255).mean(0).sum().item() == pytest.approx(red, abs=0.7)
    assert frame[16, 2, 0] > 240
    assert frame[16, -2, 2] > 240


def test_turned_and_not_square(stretched):
    """Shown 32x48: of the allowed sizes the square is nearest, and the ends of the picture are cut off."""
    frame = read_clip(stretched / "turned.mp4", SIZES)[0].float()
    assert frame.shape == (32, 32, 3)
    ends = sorted((frame[1, 16].argmax().item(), frame[-2, 16].argmax().item()))
    assert ends == [0, 2]  # red at one end of the height, blue at the other
    assert (frame[..., 0] / 255).mean(1).sum().item() == pytest.approx(8, abs=1)


def test_fields_leave_no_comb(tmp_path):
    """Stripes that move from field to field; every other line of such a frame is a field later."""
    moving = "geq=lum='if(lt(mod(X+13*N,64),32),16,235)':cb=128:cr=128"
    fields = ("tinterlace=mode=interleave_top,setfield=tff", "-c:v", "ffv1")
    make(tmp_path, f"color=white:s=64x64:r=50:d=1.2,{moving}", {"fields.mkv": fields, "frames.mkv": (moving,)})
    own = [read_clip(tmp_path / name, SIZES).float().mean(-1) for name in ("fields.mkv", "frames.mkv")]
    for frames in own:
        assert (frames[:, 1:-1] - (frames[:, 2:] + frames[:, :-2]) / 2).abs().mean() < 1
        assert frames[0].std() > 90  # not blended either


def test_lines_that_are_no_comb_stay(tmp_path):
    lines = "geq=lum='if(mod(Y,2),16,235)':cb=128:cr=128"
    make(tmp_path, f"color=white:s=32x32:r=8:d=1,{lines}", {"lines.mkv": ("null",)})
    frames = read_clip(tmp_path / "lines.mkv", SIZES).float()
    assert frames[:, ::2].min() == 255
    assert frames[:, 1::2].max() == 0


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [(8, 8, 9), (9, 8, 9), (16, 8, 17), (15, 8, 9), (24, 24, 9), (50, 25, 17), (2, 1, 17)],
)
def test_no_second_is_lost(tmp_path, frames, fps, expected):
    write_video(tmp_path / "a.mp4", frames=frames, fps=fps)
    clip = read_clip(tmp_path / "a.mp4", SIZES)
    assert clip.shape == (expected, 32, 32, 3)
    brightness = clip.float().mean((1, 2, 3))
    assert brightness[-1] - brightness[0] > 100
    if frames == expected - 1:
        assert torch.equal(clip[-1], clip[-2])
        assert (brightness[1:-1] > brightness[:-2]).all()


def test_too_short(tmp_path):
    write_video(tmp_path / "a.mp4", frames=14)
    with pytest.raises(
        UnreadableVideoError, match=r"^too short: it is 1.75 s long, the shortest that is taken is 2 s$"
    ):
        read_clip(tmp_path / "a.mp4", SIZES, seconds=[2])
    write_video(tmp_path / "b.mp4", frames=3, fps=24)  # one frame at 8 a second, which is no still
    with pytest.raises(
        UnreadableVideoError, match=r"^too short: it is 0.125 s long, the shortest that is taken is 1 s$"
    ):
        read_clip(tmp_path / "b.mp4", SIZES)


def test_a_changing_frame_rate(tmp_path):
    """Frames 6 to 29 of 60 are missing: the sixth is shown meanwhile."""
    select = "select='lt(n,6)+gte(n,30)'"
    outputs = dict.fromkeys(("a.mkv", "a.mp4"), (select, "-fps_mode", "vfr", *H264))
    make(tmp_path, "color=black:s=64x64:r=24:d=2.5,geq=lum='16+3*N':cb=128:cr=128", outputs)
    for name in outputs:
        clip = read_clip(tmp_path / name, SIZES)
        assert len(clip) == 17
        brightness = clip.float().mean((1, 2, 3))
        assert brightness[2:9].std() < 1
        assert brightness[11] - brightness[8] > 80


def test_sound_that_begins_before_the_picture(tmp_path):
    """The clip begins with the first frame, shown once."""
    path = tmp_path / "late.mp4"
    picture = "color=black:s=64x64:r=8:d=1.5,geq=lum='16+16*N':cb=128:cr=128"
    run(
        "-f",
        "lavfi",
        "-i",
        "sine=d=2",
        "-itsoffset",
        "0.5",
        "-f",
        "lavfi",
        "-i",
        picture,
        *H264,
        "-fps_mode",
        "passthrough",
        str(path),
    )
    brightness = read_clip(path, SIZES).float().mean((1, 2, 3))
    assert (brightness[1:] > brightness[:-1]).all()


def test_frames_of_a_file(tmp_path):
    write_video(tmp_path / "a.mp4", frames=17)
    frames = read_clip(tmp_path / "a.mp4", SIZES)
    assert frames.shape == (17, 32, 32, 3)
    assert frames[-1].float().mean() - frames[0].float().mean() > 200
    assert read_clip(tmp_path / "a.mp4", SIZES, seconds=[1]).shape == (9, 32, 32, 3)
    assert [frames_of(seconds, SIZES) for seconds in (1, 2)] == [9, 17]
    assert nearest_size((1080, 1920), FLASH_512.sizes) == (384, 672)
    assert nearest_size((720 * 16 / 11, 576), FLASH_512.sizes) == (672, 384)


def test_an_image_is_one_frame(tmp_path):
    from PIL import Image

    image = Image.new("RGB", (48, 32), "blue")
    image.paste((255, 0, 0), (0, 0, 12, 32))
    turned = image.getexif()
    turned[0x112] = 6  # shown turned by 90 degrees clockwise: red on top
    image.save(tmp_path / "image.jpg", exif=turned, quality=100, subsampling=0)
    frames = read_clip(tmp_path / "image.jpg", SIZES)
    assert frames.shape == (1, 32, 32, 3)
    assert frames[0, 1, 16].argmax() == 0
    assert frames[0, 16, 16].argmax() == 2


@pytest.mark.parametrize("name", ["gone.mp4", "x" * 300, "\ud800.mp4", "a\0.mp4", "."])
def test_names_of_no_file(tmp_path, name):
    with pytest.raises(UnreadableVideoError, match=r"no such file|too long"):
        read_clip(tmp_path / name, SIZES)


def test_a_damaged_file(tmp_path):
    write_video(tmp_path / "a.mp4", frames=24, fps=24)
    whole = (tmp_path / "a.mp4").read_bytes()
    hole = whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 4
    (tmp_path / "hole.mp4").write_bytes(whole[:hole] + bytes(60) + whole[hole + 60 :])
    with pytest.raises(UnreadableVideoError):
        read_clip(tmp_path / "hole.mp4", SIZES)
