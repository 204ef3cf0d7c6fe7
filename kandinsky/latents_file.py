"""Sampled latents in a file, so that a failed decode loses nothing: safetensors, float32, with the request."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kandinsky.request import Job

SUFFIX = ".latents.safetensors"


def save_latents(latents: Tensor, job: Job) -> Path:
    """Write `[T, H, W, C]` latents beside the job's target (or here, if it has none) and return where.

    They can be decoded later: `pipe.vae.decode(safetensors.torch.load_file(path)["latents"])`.
    """
    target = job.path or Path(f"kandinsky-{job.seed}")
    path = target.with_name(target.stem + SUFFIX)
    metadata = {"prompt": job.prompt, "seed": str(job.seed)}
    save_file({"latents": latents.to("cpu", torch.float32).contiguous()}, path, metadata=metadata)
    return path
