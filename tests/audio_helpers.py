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
from kandinsky.ffmpeg.program import ffmpeg

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


SMALL_UNET = {
    "sample_size": 64,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 64,
    "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
SMALL_VAE = {
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@cache
def small_unet() -> Any:
    """A twentieth of the golden one, which is for what needs no golden values."""
    return draw_(build_unet(SMALL_UNET))


@cache
def small_vae() -> Any:
    from diffusers import AutoencoderKL

    return draw_(AutoencoderKL.from_config(SMALL_VAE))


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


def save_small(folder: Path) -> Path:
    """The small model in the published layout, for `cache_dir`."""
    own = folder / "kandinsky-4-v2a"
    parts = (
        ("unet", "UNet2DConditionModel", small_unet(), SMALL_UNET),
        ("vae", "AutoencoderKL", small_vae(), SMALL_VAE),
    )
    for name, kind, module, config in parts:
        (own / name).mkdir(parents=True)
        state = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(state, own / name / "diffusion_pytorch_model.safetensors")
        (own / name / "config.json").write_text(json.dumps({"_class_name": kind, **config}))
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


ENCODER_CODE = '''
"""A small encoder as a repository on the hub has one: its hidden states tell what it was given."""
import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizer
from transformers.modeling_outputs import CausalLMOutputWithPast


class SmallConfig(PretrainedConfig):
    model_type = "small_encoder"

    def __init__(self, hidden_size=4096, **rest):
        super().__init__(**rest)
        self.hidden_size = hidden_size


class SmallTokenizer(PreTrainedTokenizer):
    def __init__(self, **rest):
        super().__init__(**rest)

    vocab_size = 256

    def get_vocab(self):
        return {chr(code): code for code in range(256)}

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return ord(token)

    def save_vocabulary(self, folder, filename_prefix=None):
        return ()


class SmallModel(PreTrainedModel):
    config_class = SmallConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def _init_weights(self, module):
        pass

    def build_conversation_input_ids(self, *, tokenizer, query, images, history, template_version):
        assert history == [] and template_version == "base"
        letters = [1, *(tokenizer._convert_token_to_id(letter) for letter in query)]
        frames = images[0].shape[1] if images else 0
        ids = [1] + [0] * (2 * frames) + letters[1:]
        kinds = [0] + [1] * (2 * frames) + [0] * len(query)
        made = {"input_ids": torch.tensor(ids), "token_type_ids": torch.tensor(kinds)}
        made["attention_mask"] = torch.ones_like(made["input_ids"])
        if images:
            made["images"] = [images[0].transpose(0, 1)]
        return made

    def forward(self, input_ids, token_type_ids, attention_mask, images=None, output_hidden_states=False):
        assert output_hidden_states
        told = input_ids.float()
        if images is not None:
            levels = images[0][0].float().mean((1, 2, 3)).repeat_interleave(2)
            levels[1::2] += 1
            told[token_type_ids == 1] = levels
        states = told[..., None].expand(-1, -1, self.config.hidden_size) * self.scale
        return CausalLMOutputWithPast(hidden_states=(states * 0, states, states * 2))
'''


def save_encoder(folder: Path, *, channels: int = 4096) -> Path:
    """A small encoder with its own code, where transformers finds it."""
    folder.mkdir(parents=True)
    (folder / "small.py").write_text(ENCODER_CODE)
    config = {
        "model_type": "small_encoder",
        "hidden_size": channels,
        "architectures": ["SmallModel"],
        "auto_map": {"AutoConfig": "small.SmallConfig", "AutoModelForCausalLM": "small.SmallModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": "SmallTokenizer", "auto_map": {"AutoTokenizer": ["small.SmallTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    save_file({"scale": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
