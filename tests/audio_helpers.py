"""The small V2A model of the golden file, and others like it."""

import json
import re
import subprocess
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from helpers import golden_folder
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kandinsky.audio.embeddings import Embeddings
from kandinsky.audio.unet import build_unet
from kandinsky.output.video import ffmpeg

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""As with Stable Diffusion 1."""


@cache
def golden_metadata() -> dict[str, str]:
    with safe_open(golden_folder() / "v2a.safetensors", "pt") as handle:
        return handle.metadata()


@cache
def golden_tensors() -> dict[str, Tensor]:
    return load_file(golden_folder() / "v2a.safetensors")


def golden_config(name: str) -> dict[str, Any]:
    return json.loads(golden_metadata()[f"{name}_config"])


@torch.no_grad()
def draw_(module: nn.Module) -> Any:
    """Every parameter from a generator that its name seeds, as the golden file's were."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if parameter.ndim > 1:
            noise /= parameter[0].numel() ** 0.5
        elif "norm" in name and name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        parameter.copy_(noise)
    return module.requires_grad_(False).eval()


@cache
def golden_unet() -> Any:
    return draw_(build_unet(golden_config("unet")))


@cache
def golden_vae() -> Any:
    from diffusers import AutoencoderKL

    return draw_(AutoencoderKL.from_config(golden_config("vae")))


@cache
def golden_embeddings() -> Embeddings:
    given = golden_tensors()
    return Embeddings(given["text"], given["video"])


class FakeEncoder:
    """An encoder whose embeddings tell what it was asked for; `asked` has each video's shape and prompt."""

    device = torch.device("cpu")
    mark = "a fake"

    def __init__(self, *, refusal: str | None = None):
        self.asked: list[tuple[tuple[int, ...], str]] = []
        self._refusal = refusal

    def check(self) -> None:
        if self._refusal is not None:
            raise ValueError(self._refusal)

    def __call__(self, video: Tensor, prompt: str) -> tuple[Tensor, Tensor]:
        self.asked.append((tuple(video.shape), prompt))
        seen = video.float().mean((0, 2, 3))  # [frames]
        return torch.full((100, 4096), float(len(prompt)) / 100), (seen / 255)[:, None].expand(-1, 4096).contiguous()


def save_golden(folder: Path) -> Path:
    """The golden model in the published layout, for `cache_dir`."""
    own = folder / "kandinsky-4-v2a"
    for name, module in (("unet", golden_unet()), ("vae", golden_vae())):
        (own / name).mkdir(parents=True)
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(state, own / name / "diffusion_pytorch_model.safetensors")
        kind = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}[name]
        (own / name / "config.json").write_text(json.dumps({"_class_name": kind, **golden_config(name)}))
    (own / "scheduler").mkdir()
    (own / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return folder


def packets(path: Path, kind: str) -> tuple[str, float]:
    """The codec of a file's picture ("v") or sound ("a"), and the seconds until its end."""
    command = [ffmpeg(), "-v", "error", "-i", str(path), "-map", f"0:{kind}", "-c", "copy", "-f", "framecrc", "-"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [list(map(int, line.split(",")[1:4])) for line in listed.splitlines() if line[:1].isdigit()]
    unit = re.search(r"^#tb 0: 1/(\d+)$", listed, re.MULTILINE)
    codec = re.search(r"^#codec_id 0: (\w+)", listed, re.MULTILINE)
    assert unit and codec
    return codec[1], max(shown + length for _, shown, length in lines) / int(unit[1])


def picture_hash(path: Path) -> str:
    """Of the bytes of a file's picture."""
    command = [ffmpeg(), "-v", "error", "-i", str(path), "-map", "0:v", "-c", "copy", "-f", "streamhash", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
