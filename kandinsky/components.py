"""The components of a pipeline, each loaded to its place."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kandinsky.checkpoint import load_dit
from kandinsky.hub import WeightPaths
from kandinsky.int8 import quantise_linears_
from kandinsky.memory import home_of_t5
from kandinsky.messages import Messenger
from kandinsky.model.dit import DiT
from kandinsky.parallel import builder, shard_for
from kandinsky.places import Places
from kandinsky.prompt_cache import PromptCache, fingerprint
from kandinsky.ranks import Ranks
from kandinsky.t5 import T5Encoder
from kandinsky.text_encoder import TextEncoder, load_t5, load_tokenizer
from kandinsky.vae.autoencoder import VideoAutoencoder, load_vae
from kandinsky.weight_files import Checkpoint


@dataclass(frozen=True)
class TextSettings:
    """What the text encoder is for.

    Args:
        tokens: in a prompt.
        folder: for embeddings that outlast the process.
        prompt: to be encoded while other weights are read.
    """

    tokens: int
    folder: Path | None
    prompt: str | None


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
    text: TextSettings,
) -> Components:
    """Load what this rank needs.

    T5's weights come first: while the others are read, the tokenizer is imported and the first prompt encoded.

    Args:
        checkpoint: the DiT's.
    """
    messenger = Messenger(team, places.devices["dit"]) if team.size > 1 else None
    decoding = messenger if places.devices["vae"] == places.devices["dit"] else None
    build, shard = builder(parallelism, team), shard_for(parallelism, team)
    with ThreadPoolExecutor(1) as pool:
        prompts = None
        if team.is_main:
            model = load_t5(paths.text_encoder, **places.loading("text_embedder")) if text.folder is None else None
            prompts = pool.submit(_prompts, paths, places, text, model)
        dit = load_dit(checkpoint, build=build, shard=shard, **places.loading("dit"))
        vae = _load_vae(paths, places, decoding) if team.is_main or decoding is not None else None
        return Components(dit, prompts.result() if prompts is not None else None, vae, messenger)


def _prompts(paths: WeightPaths, places: Places, text: TextSettings, model: T5Encoder | None) -> PromptCache:
    """The text encoder with its memory of prompts; without `model` it is loaded when it is first needed."""
    device, dtype = places.devices["text_embedder"], places.dtype_of("text_embedder")

    def load() -> TextEncoder:
        t5 = model or load_t5(paths.text_encoder, **places.loading("text_embedder"))
        encoder = TextEncoder(t5, load_tokenizer(paths.tokenizer), text_tokens=text.tokens)
        if places.text_encoder_int8:
            quantise_linears_(t5, device)
        if places.mode("text_embedder") != "resident":
            encoder.home = home_of_t5(t5, device, mode=places.mode("text_embedder"))
        return encoder

    mark = fingerprint(paths.text_encoder, paths.tokenizer, text.tokens, dtype, device.type, places.text_encoder_int8)
    prompts = PromptCache(load, device=device, fingerprint=mark, folder=text.folder)
    if model is not None:
        _loaded = prompts.encoder
    if text.prompt is not None:
        prompts(text.prompt)
    return prompts


def _load_vae(paths: WeightPaths, places: Places, messenger: Messenger | None) -> VideoAutoencoder:
    staged = places.mode("vae") != "resident"
    settings = {**places.loading("vae"), "device": places.devices["vae"]}
    return load_vae(paths.vae, memory_saving=places.memory_saving, messenger=messenger, staged=staged, **settings)
