"""ffmpeg's filter for frames between frames: which of its settings, cut into which segments, on how many cores.

    python benchmarks/minterpolate.py a.mp4 b.mp4 [--only settings segments cores]
    python benchmarks/minterpolate.py --size tiny --device cpu   # to try the benchmark itself

Settings and segments: of each video every second frame is left out and made again. PSNR in dB, mean over frames, and
seconds of all processors that ffmpeg took. Settings are compared in one run over the whole video; segments by how many
gaps each has and how many frames before them its ffmpeg is given, also by the share of bytes that differ from one run.
Cores: seconds on the clock until the last of three times as many frames of the first video, and until the first of
them, by how many ffmpegs run at once; all frames are there from the beginning, which a decoder would give one after the
other. The limit is the time of one, divided by how many. Without videos, one is drawn. The last line is JSON.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from interpolation import drawn_video, psnr
from script import device_in, finish, machine, parser_of

from kandinsky.interpolate.minterpolate import USUAL, FilterSettings, cores, minterpolated
from kandinsky.output.read_video import open_video, read_frames

PARTS = ("settings", "segments", "cores")
ONE_RUN = 10**9
USED = "me=epzs"
SETTINGS = {
    "full": (
        *(USED, "me=umh", "me=hexbs", "me=ds", "me=fss", "me=tss", "me=ntss", "me=tdls"),
        *("mb_size=8", "me=umh:mb_size=8", "search_param=16", "search_param=64"),
        *("me_mode=bilat", "me_mode=bilat:mc_mode=aobmc:vsbmc=1", "mc_mode=aobmc:vsbmc=1"),
    ),
    "tiny": (USED, "me=hexbs"),
}
SEGMENTS = {"full": tuple((gaps, context) for gaps in (4, 8, 12, 16) for context in range(4)), "tiny": ((2, 1),)}
FACTOR = 3


def chunks_of(video: np.ndarray) -> Iterator[np.ndarray]:
    """As the decoder gives them."""
    return (video[start : start + 8] for start in range(0, len(video), 8))


def made_again(video: np.ndarray, settings: FilterSettings) -> tuple[np.ndarray, float]:
    """Every second frame, and seconds of processors."""
    before = os.times()
    made = np.concatenate(list(minterpolated(chunks_of(video[::2]), 2, settings=settings)))[1::2]
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return made, spent


def compare_settings(video: np.ndarray, size: str) -> dict[str, dict[str, float]]:
    """PSNR and seconds of one run with each of the filter's settings."""
    found = {}
    for options in SETTINGS[size]:
        # Of an option that is given twice, ffmpeg takes the last.
        settings = FilterSettings(options=f"{USUAL.options}:{options}", gaps=ONE_RUN)
        made, spent = made_again(video, settings)
        found[options] = {"psnr": round(psnr(made, video[1::2]), 3), "seconds": round(spent, 2)}
        print(f"    {options:36} {found[options]['psnr']:6.2f} dB {spent:6.1f} s", flush=True)
    return found


def compare_segments(video: np.ndarray, size: str) -> dict[str, dict[str, float]]:
    """PSNR, seconds, and the share of bytes that differ, for one run and for segments."""
    one, found = None, {}
    for gaps, context in ((ONE_RUN, 0), *SEGMENTS[size]):
        made, spent = made_again(video, FilterSettings(gaps=gaps, context=context))
        one = made if one is None else one
        name = "one run" if gaps == ONE_RUN else f"{gaps} gaps, {context} before"
        found[name] = {
            "psnr": round(psnr(made, video[1::2]), 3),
            "seconds": round(spent, 2),
            "differ": round(float((made != one).mean()), 4),
        }
        print(f"    {name:18} {found[name]['psnr']:7.3f} dB {spent:6.1f} s {found[name]['differ']:7.2%}", flush=True)
    return found


def seconds_by_cores(video: np.ndarray) -> dict[str, dict[str, float]]:
    """Until the first frames and until all, by how many ffmpegs run at once."""
    found = {}
    for at_once in sorted({1, 2, 4, 8, cores()}):
        if at_once > cores():
            continue
        start, first = time.perf_counter(), 0.0
        for _ in minterpolated(chunks_of(video), FACTOR, settings=FilterSettings(at_once=at_once)):
            first = first or time.perf_counter() - start
        found[str(at_once)] = {"first_seconds": first, "seconds": time.perf_counter() - start}
        print(f"    {at_once:3} at once: first {first:.2f} s, all {found[str(at_once)]['seconds']:.2f} s", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu",))
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    given = parser.parse_args(arguments)
    about = {**machine(device_in(given)), "size": given.size, "cores": cores()}
    finish({**about, **figures(given)}, given)


def figures(given: argparse.Namespace) -> dict[str, object]:
    """Each part that is asked for."""
    videos = {path.stem: np.concatenate(list(read_frames(open_video(path)))) for path in given.videos}
    videos = {
        name: video[: (len(video) - 1) // 2 * 2 + 1] for name, video in (videos or {"drawn": drawn_video()}).items()
    }
    found: dict[str, object] = {}
    for part, compare in (("settings", compare_settings), ("segments", compare_segments)):
        if part in given.only:
            table = {}
            for name, video in videos.items():
                print(f"{part}, {name}", flush=True)
                table[name] = compare(video, given.size)
            found[part] = table
    if "cores" in given.only:
        print("cores", flush=True)
        found["at_once"] = seconds_by_cores(next(iter(videos.values())))
    return found


if __name__ == "__main__":
    main()
