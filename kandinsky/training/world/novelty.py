"""Teaching the tiny model a background that it never saw, and measuring what came of it.

    python -m kandinsky.training.world.novelty data OUT --weights W          64 clips, and captions of what is to stay
    python -m kandinsky.training.world.novelty judge LORA ... --weights W    on captions that no training saw

`data` writes shards to OUT, and OUT/keep.txt with captions of old training scenes; `lora` trains on them. `judge` has a
row for the base and for each LoRA, on captions with a striped background and on old ones that were held out, all made
in four steps with weights that were merged as a pipeline merges them. The judge may find stripes everywhere, so that
what has them against its caption is seen.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from kandinsky.atomic import write_text
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import Lora, add_low_rank, linears_of, read_lora
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.config import FLASH_512
from kandinsky.loading.components import load_dit, load_text_encoder, load_vae
from kandinsky.loading.devices import default_dtype, device_argument
from kandinsky.model.dit import DiT
from kandinsky.training.data import Encoded, write_shards
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import sample_from
from kandinsky.training.world.data import encode_clips
from kandinsky.training.world.evaluate import Evaluation, accuracy, some_scenes, table
from kandinsky.training.world.grammar import Scene, caption, new_scenes, split
from kandinsky.training.world.metrics import sharpness
from kandinsky.training.world.render import render
from kandinsky.user_files.paths import path_argument

NEW = ("texture", "striped")
CLIPS, KEPT = 64, 512
FRAMES = 17
AT_ONCE = 16


@torch.inference_mode()
def new_clips(weights: Path, device: torch.device, *, clips: int = CLIPS, seed: int = 0) -> Iterator[Encoded]:
    """Clips of two seconds with the new value, encoded: of the first scenes, which `held_out` leaves out."""
    place = {"device": device, "dtype": default_dtype(device)}
    vae = load_vae(place_of(weights, "vae"), **place).autoencoder
    tokens = (read_model_set(weights) or FLASH_512).text_tokens
    folders = place_of(weights, "text_encoder"), place_of(weights, "tokenizer")
    t5 = load_text_encoder(*folders, text_tokens=tokens, **place)
    scenes, generator = new_scenes(*NEW)[:clips], torch.Generator().manual_seed(seed)
    for start in range(0, clips, AT_ONCE):
        some = scenes[start : start + AT_ONCE]
        latents = encode_clips(vae, render(some, FRAMES, generator=generator, device=device)).cpu()
        for number, (scene, made) in enumerate(zip(some, latents, strict=True), start):
            yield Encoded(str(number), caption(scene), made, t5(caption(scene)).cpu())


def held_out(count: int) -> list[Scene]:
    """Scenes with the new value of which no clip is trained with."""
    return new_scenes(*NEW)[CLIPS : CLIPS + count]


def captions_to_keep(count: int = KEPT) -> list[str]:
    """Captions of old scenes that the base was trained with."""
    return [caption(scene) for scene in split()[0][:count]]


def write_data(out: Path, weights: Path, device: torch.device) -> None:
    """Shards and `keep.txt`."""
    write_shards(new_clips(weights, device), out)
    write_text(out / "keep.txt", "\n".join(captions_to_keep()) + "\n")


def with_lora(dit: DiT, lora: Lora | None) -> DiT:
    """A plain DiT in float32 with low-rank weights merged in, in place."""
    for name, layer in {} if lora is None else lora.layers.items():
        linear = dit.get_submodule(name)
        assert isinstance(linear, torch.nn.Linear)
        linear.weight.data = add_low_rank(linear.weight.data, [(layer, 1.0)], None)
    return dit


def judged(evaluation: Evaluation, lora: Path | None, *, dit_file: Path) -> dict[str, float]:
    """A row of figures for the base, or for it with low-rank weights."""
    checkpoint = open_checkpoint(dit_file)
    dit = load_dit(checkpoint, device=evaluation.device, dtype=torch.float32)
    dit = with_lora(dit, None if lora is None else read_lora(lora, linears_of(checkpoint.shapes)))
    levels = Levels(place_of(evaluation.weights, "scheduler")).to(evaluation.device)
    clips = evaluation.made(
        lambda text, generator: sample_from(dit, levels, evaluation.noise(len(text), 4, generator), text)
    )
    shares = accuracy(evaluation.scenes, clips, new_textures=True)
    return shares | {"sharpness": sharpness(torch.stack(clips)).mean().item()}


def report(
    weights: Path, loras: Sequence[Path], device: torch.device, *, prompts: int
) -> Mapping[str, dict[str, float]]:
    """Rows for the base and each LoRA, on new captions and on old ones."""
    rows = {}
    for kind, scenes in (("new", held_out(prompts)), ("old", some_scenes(prompts))):
        evaluation = Evaluation(weights, device, scenes=scenes, seconds=2)
        for lora in (None, *loras):
            name = "base" if lora is None else lora.stem
            rows[f"{name}, {kind} captions"] = judged(evaluation, lora, dit_file=weights / FLASH_512.dit_file)
    return rows


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("data", "judge"))
    parser.add_argument("files", type=path_argument, nargs="*", help="folder for data, or files of low-rank weights")
    parser.add_argument("--weights", type=path_argument, required=True)
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--device", type=device_argument, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=path_argument)
    given = parser.parse_args(arguments)
    device = given.device
    if given.action == "data":
        (out,) = given.files
        write_data(out, given.weights, device)
        return
    rows = report(given.weights, given.files, device, prompts=given.prompts)
    print(table(dict(rows)))
    if given.json:
        write_text(given.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
