"""A sound into a copy of its video: the picture's stream is taken as it is, packet by packet, the sound becomes AAC.

As published, the frames play a little faster than before, so that those the sound was made for take as long as the
sound: 12 seconds get 11.83 s of it. Only the times in the container change for that. A picture that goes on after
its sound does so in silence: both streams end together.
"""

import subprocess
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from kandinsky.atomic import Partial, create_new
from kandinsky.audio.clip import Clip
from kandinsky.audio.waveform import SAMPLE_RATE
from kandinsky.errors import VideoError, shown
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.paths import check_target
from kandinsky.output.video import tags_file

STREAMED = ("-movflags", "empty_moov+frag_keyframe")
FORMATS = {".mp4": ("mp4", *STREAMED), ".mov": ("mov", *STREAMED), ".mkv": ("matroska",)}
"""How ffmpeg writes a file with an ending to a pipe, which it does to try a picture's codec out."""
ENDINGS = tuple(FORMATS)
"""Of files that may hold AAC and most kinds of pictures."""
BITRATE = "192k"
ROUNDED = 1e-3
"""Of the length: 12 ms in 12 s, which is less than a frame and not heard."""


def check_save_path(path: Path, clip: Clip, *, replace_audio: bool) -> None:
    """Look whether the video with its sound can be written.

    Raises:
        ValueError: the ending is not of a file for both streams, nothing can be written there, the video has a sound
            already that nobody has asked to replace, or a picture that such a file cannot hold.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"save_path={shown(str(path))}: must end with one of {', '.join(ENDINGS)}")
    check_target(path)
    if clip.has_sound and not replace_audio:
        raise ValueError(
            f"video={shown(str(clip.path))} has a sound track, which is kept: the new file would be without it. Allow "
            "that with replace_audio=True (--replace-audio)"
        )
    trial = ["-map", "0:V:0", "-c", "copy", "-frames:v", "1", "-f", *FORMATS[path.suffix.lower()], "pipe:1"]
    done = subprocess.run(
        [ffmpeg(), "-v", "error", "-i", f"file:{clip.path}", *trial], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise ValueError(
            f"save_path={shown(str(path))}: it does not hold the video's picture ({clip.codec}); .mkv holds most"
        )


def play_rate(clip: Clip, samples: int) -> float:
    """What times in the file are multiplied with: the sound's length over that of the frames that it is for.

    Where it makes a difference of less than `ROUNDED`, a frame takes a whole number of the file's units: else some take
    one more than others, and players would not know the frames' rate.
    """
    rate = Fraction(samples, SAMPLE_RATE) / min(clip.duration, clip.seconds)
    units = clip.duration / clip.frames / clip.unit
    even = round(rate * units) / units
    return float(even if abs(even / rate - 1) < ROUNDED else rate)


def write_with_sound(clip: Clip, waveform: Tensor, path: Path, *, comment: str | None) -> None:
    """Write the clip's picture and a sound to `path`, which may be the clip's own file.

    Args:
        waveform: float32 `[samples]` at 44,100 Hz.
        comment: for the file's metadata; None leaves that of the clip.

    Raises:
        VideoError: ffmpeg failed. `path` is as it was, and the message says in which file the sound is.
    """
    rate = play_rate(clip, len(waveform))
    samples = np.zeros(max(len(waveform), round(float(clip.duration) * rate * SAMPLE_RATE)), np.float32)
    samples[: len(waveform)] = waveform.numpy()
    partial, tags = Partial(path), None
    try:
        tags = tags_file(path, comment)
        done = subprocess.run(
            _command(clip, rate, tags.path, partial.path), input=samples.tobytes(), capture_output=True, check=False
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise VideoError(f"ffmpeg failed to write {path}: {said or f'exit status {done.returncode}'}")
        partial.commit()
    except (VideoError, OSError) as error:
        kept = create_new(path.with_suffix(".wav"), lambda file: write_wav(file, waveform), ending=".wav")
        raise VideoError(f"{error}; the sound is in {kept}") from error
    finally:
        partial.discard()
        if tags is not None:
            tags.discard()


def _command(clip: Clip, rate: float, tags: Path, target: Path) -> list[str]:
    """Of ffmpeg, which reads the sound from its standard input."""
    picture = ["-i", f"file:{clip.path}"]
    times = f"setts=pts=PTS*{rate!r}:dts=DTS*{rate!r}:duration=DURATION*{rate!r}"
    sound = ["-f", "f32le", "-ar", str(SAMPLE_RATE), "-ac", "1", "-i", "pipe:0"]
    # Of two sources of metadata the first one wins where both have a tag.
    streams = ["-map", "0:V:0", "-map", "1:a", "-map_metadata", "2", "-map_metadata", "0"]
    settings = ["-c:v", "copy", "-bsf:v", times, "-c:a", "aac", "-b:a", BITRATE]
    if clip.codec == "hevc" and target.suffix.lower() != ".mkv":
        settings += ["-tag:v", "hvc1"]
    if target.suffix.lower() == ".mov":  # whose usual comment ends at 65,535 bytes
        settings += ["-movflags", "use_metadata_tags"]
    if target.suffix.lower() == ".mkv":  # Matroska's marks are drawn at random: same video, other bytes
        settings += ["-fflags", "+bitexact"]
    metadata = ["-f", "ffmetadata", "-i", f"file:{tags}"]
    return [ffmpeg(), "-y", "-v", "error", *picture, *sound, *metadata, *streams, *settings, f"file:{target}"]


def write_wav(path: Path, waveform: Tensor) -> None:
    """Write a sound, float32 `[samples]` within -1 and 1 at 44,100 Hz, as a file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform.numpy() * 32767).round().astype("<i2").tobytes())
