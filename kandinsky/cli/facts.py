"""What runs on this machine and why: facts for `kandinsky doctor`, each gathered without failing.

Each function returns what can be written as JSON. A fact that cannot be had is a text that says why. Nothing here loads
weights; headers are read. Prompts and paths are no facts; names of the user's folders are taken out at the end
(`without_home`).
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from kandinsky.checkpoint.dit_file import dit_in
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import COMPONENTS, WeightPaths
from kandinsky.checkpoint.pending import place_of
from kandinsky.checkpoint.standing import faults_of
from kandinsky.config import MODULES, VERSION, ModelSet
from kandinsky.errors import NothingFits
from kandinsky.loading.devices import default_dtype
from kandinsky.loading.remembered import driver_version, remembered_name
from kandinsky.memory.choose import available_host, compare_modes, free_gpu, weight_bytes
from kandinsky.model.attention import Attention, candidates
from kandinsky.model.attention_choice import Trial, best_of, trials, unasked
from kandinsky.model.bounded import Logits
from kandinsky.model.fused_support import first_line, why_not_fused
from kandinsky.model.precision import Precision
from kandinsky.video_shape import VideoShape

PACKAGES = ("torch", "triton", "diffusers", "transformers", "safetensors", "imageio-ffmpeg", "flash-attn")
COMPILERS = ("cc", "gcc", "clang", "cl")
SECONDS = 20
"""For a program that is asked for its version."""
Run = Callable[[Sequence[str]], str]
"""A command to the first line that it says."""
LOGITS = Logits(12.0, 1.5)
"""Those of norms of 1, for which attention is tried."""


def said_by(command: Sequence[str]) -> str:
    """The first line that a program prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[0]


def system() -> dict[str, Any]:
    """Versions of the system, Python and the packages that matter."""
    return {
        "kandinsky4": VERSION,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu cores": os.cpu_count(),
        "free host memory, GB": _gb(available_host()),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch's CUDA": torch.version.cuda or torch.version.hip or "none",
    }


def gpus() -> list[dict[str, Any]] | str:
    """Each CUDA device; where PyTorch has none, what it says about that."""
    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        try:
            major, minor = torch.cuda.get_device_capability(device)
            total = torch.cuda.get_device_properties(device).total_memory
            found.append(
                {
                    "name": torch.cuda.get_device_name(device),
                    "capability": f"{major}.{minor}",
                    "driver": driver_version() or "unknown",
                    "memory, GB": _gb(total),
                    "free, GB": _gb(free_gpu(device)),
                    "fused kernels": why_not_fused(device) or "tried",
                }
            )
        except Exception as error:  # noqa: BLE001  # a card that is lost raises whatever its driver says
            found.append({"name": f"GPU {index}", "error": first_line(error)})
    return found or _why_no_gpu()


def _why_no_gpu() -> str:
    try:
        torch.cuda.init()
    except Exception as error:  # noqa: BLE001  # a build without CUDA and a missing driver have each their own
        return f"none: {first_line(error)}"
    return "none"


def tools(*, run: Run = said_by, which: Callable[[str], str | None] = shutil.which) -> dict[str, str]:
    """Programs and libraries beside Python: C compiler (Triton needs one), NVRTC, ffmpeg and its encoders."""
    return {"C compiler": _compiler(run, which), "NVRTC": _nvrtc(), "ffmpeg": _ffmpeg(run)}


def attention(
    device: torch.device, preferred: Attention | None = None, *, try_all: Callable[..., list[Trial]] = trials
) -> dict[str, Any]:
    """Each exact backend with its time or why it does not run, and the one that "auto" takes.

    Args:
        device: that it is tried on.
        preferred: by the precision; taken where it runs.
        try_all: as `trials`.
    """
    head_dim, dtype = 64, torch.bfloat16 if device.type == "cuda" else torch.float32
    place = {"device": device, "dtype": dtype, "head_dim": head_dim, "logits": LOGITS}
    backends, wanted = candidates(**place), unasked(preferred, **place)
    if len(backends) == 1:
        return {"taken": backends[0].name, "why": "the only one on this device"}
    tried = try_all(backends, device=device, head_dim=head_dim)
    known = remembered_name(backends, device=device, head_dim=head_dim)
    times = {t.backend.name: t.error if t.milliseconds is None else f"{t.milliseconds:.3f} ms" for t in tried}
    why = "remembered from an earlier run" if known else "the fastest now; a run remembers what it measures"
    if wanted is not None:
        return {"taken": wanted.name, "why": "it goes with the precision and runs here", "tried": times}
    return {"taken": known or best_of(tried).name, "why": why, "tried": times}


def weights(folder: Path, model_set: ModelSet, precision: Precision) -> dict[str, str]:
    """Each component of the weights: found, or what is missing or damaged."""
    found = {}
    for name in COMPONENTS:
        try:
            path = dit_in(folder, model_set, precision) if name == "dit" else place_of(folder, name)
            wrong = faults_of(name, path).all
            found[name] = "; ".join(wrong) if wrong else f"found: {path.name}"
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the folder
            found[name] = first_line(error)
    return found


def mode(paths: WeightPaths, model_set: ModelSet, precision: Precision, device: torch.device) -> str:
    """What `plan` would take for the usual request.

    Raises:
        NothingFits: there is too little memory.
    """
    if device.type != "cuda":
        dtypes: dict[str, torch.dtype] = dict.fromkeys(MODULES, default_dtype(device))
        needed, free = weight_bytes(paths, dtypes, open_checkpoint(paths.dit)), available_host()
        told = f"everything stays on the {device.type}: {_gb(needed)} GB of weights, {_gb(free)} GB are free"
        if needed > free:
            raise NothingFits(told)
        return told
    shape = VideoShape.from_request(None, None, None, model_set=model_set)
    settings = {"model_set": model_set, "free_gpu": free_gpu(device), "free_host": available_host()}
    chosen, _ = compare_modes(paths, shape, precision, **settings)
    return f"{chosen.name}: {chosen.reason}"


def without_home(value: Any, home: Path | PureWindowsPath | None = None, *, known: Sequence[Path] = ()) -> Any:
    """The same, with `~/.../NAME` for each path in the user's home folder, in every text and wherever it stands.

    Args:
        value: texts, lists and mappings of them.
        home: the folder; None is the user's, also as its links lead.
        known: folders that texts may name. Any other path ends at a space, unless it stands between quotes.
    """
    if isinstance(value, Mapping):
        return {key: without_home(inner, home, known=known) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_home(inner, home, known=known) for inner in value]
    if not isinstance(value, str):
        return value
    homes = (home,) if home is not None else (Path.home(), Path.home().resolve())
    for folder in filter(lambda folder: folder.name, homes):  # the root, of a container for example, has none
        case = re.IGNORECASE if "\\" in str(folder) else 0
        inside = _pattern(folder)
        for place in known:
            if re.match(inside, str(place), case):
                value = re.sub(_pattern(place), _at_home, value, flags=case)
        value = re.sub(rf"(?<=(['\"])){inside}[^'\"]*(?=\1)", _at_home, value, flags=case)
        value = re.sub(rf"{inside}[^\s:;,'\"()]*", _at_home, value, flags=case)
    return value


def _pattern(folder: Path | PureWindowsPath) -> str:
    """A folder in a text, also as Python quotes it; with its end, so that ada is not found in adam."""
    return r"[\\/]+".join(map(re.escape, re.split(r"[\\/]", str(folder)))) + r"(?![\w-])"


def _at_home(found: re.Match[str]) -> str:
    return f"~/.../{found[0].replace(chr(92), '/').rstrip('/').rpartition('/')[2]}"


def _compiler(run: Run, which: Callable[[str], str | None]) -> str:
    for name in filter(None, (os.environ.get("CC"), *COMPILERS)):
        program = which(name)
        if program is not None:
            try:
                return run([program, *([] if sys.platform == "win32" else ["--version"])])
            except (OSError, subprocess.SubprocessError) as error:
                return f"{Path(program).name} does not run: {first_line(error)}"
    return "none found: Triton's kernels cannot be launched without one, PyTorch's are taken"


def _nvrtc() -> str:
    from kandinsky.model import nvrtc

    if torch.version.cuda is None:
        return "not in this build of PyTorch"
    try:
        nvrtc.library()
    except OSError as error:
        return str(error)
    return "found"


def _ffmpeg(run: Run) -> str:
    """What it is and writes, or from "no" on why no video can be written."""
    from kandinsky.ffmpeg.program import ffmpeg
    from kandinsky.output.video import codecs_here

    try:
        program, codecs = ffmpeg(), codecs_here()
        said = run([program, "-version"])
    except (ValueError, OSError, subprocess.SubprocessError) as error:
        return f"no: {first_line(error)}"
    name = " ".join(said.split()[:3])
    return f"{name}, writes {', '.join(codecs)}" if codecs else f"no: {name} has none of the encoders"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gb(nbytes: int) -> float | str:
    return round(nbytes / 1e9, 1) if nbytes < 2**60 else "unknown"
