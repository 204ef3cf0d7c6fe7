"""The components of a pipeline, each loaded to its place."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kandinsky.checkpoint import load_dit
from kandinsky.config import ModelSet
from kandinsky.hub import WeightPaths
from kandinsky.int8 import quantise_linears_
from kandinsky.memory import home_of_t5
from kandinsky.messages import Messenger
from kandinsky.model.dit import DiT
from kandinsky.parallel import builder, shard_for
from kandinsky.places import Places
from kandinsky.prompt_cache import PromptCache, fingerprint
from kandinsky.ranks import Ranks
from kandinsky.text_encoder import TextEncoder, load_text_encoder
from kandinsky.vae.autoencoder import VideoAutoencoder, load_vae
from kandinsky.weight_files import Checkpoint


@dataclass(frozen=True)
class Components:
    """What one rank has.

    Args:
        prompts: the text encoder; None on ranks that are not their team's first.
        vae: None there too, unless the team decodes together.
        messenger: None where one process works alone.
    """

    dit: DiT
    prompts: PromptCache | None
    vae: VideoAutoencoder | None
    messenger: Messenger | None


def load_components(
    paths: WeightPaths,
    checkpoint: Checkpoint,
    places: Places,
    *,
    team: Ranks,
    parallelism: str,
    model_set: ModelSet,
    prompt_folder: Path | None,
) -> Components:
    """Load what this rank needs.

    Args:
        checkpoint: the DiT's.
        prompt_folder: for embeddings that outlast the process.
    """
    messenger = Messenger(team, places.devices["dit"]) if team.size > 1 else None
    build, shard = builder(parallelism, team), shard_for(parallelism, team)
    with ThreadPoolExecutor(1) as pool:  # T5's packages are imported and its weights read beside the DiT's
        text = pool.submit(_prompts, paths, places, model_set.text_tokens, prompt_folder) if team.is_main else None
        dit = load_dit(checkpoint, build=build, shard=shard, **places.loading("dit"))
        prompts = text.result() if text is not None else None
    decoding = messenger if places.devices["vae"] == places.devices["dit"] else None
    vae = _load_vae(paths, places, decoding) if team.is_main or decoding is not None else None
    return Components(dit, prompts, vae, messenger)


def _prompts(paths: WeightPaths, places: Places, text_tokens: int, folder: Path | None) -> PromptCache:
    """The text encoder with its memory of prompts; loaded now, or with a folder when it is first needed."""
    device, mode = places.devices["text_embedder"], places.mode("text_embedder")

    def load() -> TextEncoder:
        settings = places.loading("text_embedder")
        encoder = load_text_encoder(paths.text_encoder, paths.tokenizer, text_tokens=text_tokens, **settings)
        if places.text_encoder_int8:
            quantise_linears_(encoder.model, device)
        if mode != "resident":
            encoder.home = home_of_t5(encoder.model, device, mode=mode)
        return encoder

    what = (text_tokens, places.dtype_of("text_embedder"), device.type, places.text_encoder_int8)
    mark = fingerprint(paths.text_encoder, paths.tokenizer, *what)
    prompts = PromptCache(load, device=device, fingerprint=mark, folder=folder)
    if folder is None:
        _loaded = prompts.encoder
    return prompts


def _load_vae(paths: WeightPaths, places: Places, messenger: Messenger | None) -> VideoAutoencoder:
    staged = places.mode("vae") != "resident"
    settings = {**places.loading("vae"), "device": places.devices["vae"]}
    return load_vae(paths.vae, memory_saving=places.memory_saving, messenger=messenger, staged=staged, **settings)
