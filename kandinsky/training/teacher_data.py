"""A teacher's own latents as training data: LADD's source has these instead of real ones (arXiv 2403.12015, section 3).

    python -m kandinsky.training.teacher_data OUT --weights W --teacher T.safetensors --data DATA --clips 1000

Prompts and shapes are those of DATA's clips. Sampled by DDIM, without guidance. Legend: see `velocity`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.loading.components import load_dit
from kandinsky.loading.devices import default_dtype, devices_of
from kandinsky.model.dit import DiT
from kandinsky.training.data import Batches, Encoded, ShardDataset, write_shards
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import ddim


@torch.inference_mode()
def generated(dit: DiT, levels: Levels, batches: Batches, *, clips: int, seed: int) -> Iterator[Encoded]:
    """Clips that the teacher makes of the data's prompts."""
    generator = torch.Generator().manual_seed(seed)
    with tqdm(total=clips, desc="clips") as bar:
        for batch in batches:
            noise = torch.randn(batch.latents.shape, generator=generator).to(dit.device)
            made = ddim(dit, levels, noise, batch.text.to(dit.dtype))
            for caption, latents, text in zip(batch.captions, made, batch.text, strict=True):
                if bar.n == clips:
                    return
                yield Encoded(f"{seed}-{bar.n}", caption, latents, text)
                bar.update()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for shards")
    parser.add_argument("--weights", type=Path, required=True, help="folder with the scheduler")
    parser.add_argument("--teacher", type=Path, required=True, help="DiT weights")
    parser.add_argument("--data", type=Path, required=True, help="shards whose prompts and shapes are taken")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    device = devices_of(given.device)["dit"]
    dit = load_dit(open_checkpoint(given.teacher), device=device, dtype=default_dtype(device))
    levels = Levels(given.weights / "scheduler", num_steps=given.steps).to(device)
    batches = Batches(ShardDataset(given.data), given.batch_size, seed=given.seed, device=device)
    clips = generated(dit, levels, batches, clips=given.clips, seed=given.seed)
    print(f"{write_shards(clips, given.out)} clips in {given.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
