"""A teacher's own latents as training data: LADD's source has these instead of real ones (arXiv 2403.12015, section 3).

    python -m kandinsky.training.teacher_data OUT --weights W --teacher T.safetensors --data DATA --clips 1000

Prompts and shapes are those of DATA's clips. Sampled by DDIM, without guidance. What is made stands in OUT when a run
is stopped, and another seed adds to it. Legend: see `velocity`.
"""

import argparse
import sys
from collections.abc import Iterator

import torch
from tqdm import tqdm

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.pending import place_of
from kandinsky.loading.components import load_dit
from kandinsky.loading.devices import default_dtype, device_argument
from kandinsky.model.dit import DiT
from kandinsky.training.data import Batches, Encoded, ShardDataset, ids_in, write_shards
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import ddim
from kandinsky.user_files.paths import path_argument


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
    parser.add_argument("out", type=path_argument, help="folder for shards")
    parser.add_argument("--weights", type=path_argument, required=True, help="folder with the scheduler")
    parser.add_argument("--teacher", type=path_argument, required=True, help="DiT weights")
    parser.add_argument("--data", type=path_argument, required=True, help="shards whose prompts and shapes are taken")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device_argument, default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    if any(name.startswith(f"{given.seed}-") for name in ids_in(given.out)):
        parser.error(f"out={str(given.out)!r} has clips of seed {given.seed}; allowed is another seed or a new folder")
    device = given.device
    dit = load_dit(open_checkpoint(given.teacher), device=device, dtype=default_dtype(device))
    levels = Levels(place_of(given.weights, "scheduler"), num_steps=given.steps).to(device)
    batches = Batches(ShardDataset(given.data), given.batch_size, seed=given.seed, device=device)
    clips = generated(dit, levels, batches, clips=given.clips, seed=given.seed)
    print(f"{write_shards(clips, given.out)} clips in {given.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
