"""Samples of a run: the same captions and noise each time, decoded to one mp4, a clip for each caption side by side."""

import json
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kandinsky.atomic import write_text
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.config import FLASH_512
from kandinsky.loading.components import load_vae
from kandinsky.output.video import VideoWriter
from kandinsky.sampler import draw_noise
from kandinsky.training.data import Batches
from kandinsky.training.settings import RunSettings

if TYPE_CHECKING:
    from kandinsky.vae.autoencoder import VideoAutoencoder


class SampleWriter:
    """Writes `output/samples/step-00001000.mp4`, and its captions beside it.

    Args:
        settings: of the run.
        batches: captions and the clips' shape come from its first batch.
        accelerator: every process samples (parameters may be sharded), the main one decodes and writes.
    """

    def __init__(self, settings: RunSettings, batches: Batches, accelerator: Accelerator):
        self.folder = settings.output / "samples"
        self.settings, self.accelerator = settings, accelerator
        self._vae: VideoAutoencoder | None = None
        self._batches = batches

    def write(self, objective: nn.Module, step: int, *, noise_levels: int) -> None:
        """Sample with the objective's student as it is, in `noise_levels` steps."""
        batch = self._batches.first()
        count = min(self.settings.sample_prompts, len(batch.captions))
        text, shape = batch.text[:count].float(), (count, *batch.latents.shape[1:])
        generator = torch.Generator().manual_seed(self.settings.seed)
        noises = torch.stack([draw_noise(shape, generator).float() for _ in range(noise_levels)])
        with torch.no_grad(), self.accelerator.autocast():
            latents = objective(noises.to(self.accelerator.device), text, None)
        if self.accelerator.is_main_process:
            self._decode(latents, batch.captions[:count], step)

    def _decode(self, latents: Tensor, captions: list[str], step: int) -> None:
        if self._vae is None:
            dtype = torch.bfloat16 if latents.is_cuda else torch.float32
            self._vae = load_vae(place_of(self.settings.weights, "vae"), device=latents.device, dtype=dtype)
        clips = [torch.cat(list(self._vae.decode(clip))) for clip in latents]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08}.mp4"
        frames = torch.cat(clips, dim=2).cpu().numpy()  # side by side
        height, width = frames.shape[1:3]
        model_set = read_model_set(self.settings.weights) or FLASH_512
        with VideoWriter(path, width=width, height=height, fps=model_set.fps) as writer:
            writer.write(frames)
            writer.finish()
        write_text(path.with_suffix(".json"), json.dumps(captions, indent=1) + "\n")
