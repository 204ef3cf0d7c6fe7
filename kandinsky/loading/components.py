"""One loader for each component: from files to a module on its device, strictly.

Modules are built on the meta device; see `checkpoint.load` for how their tensors come in. Training takes its components
from here too. What they are put together to is `assemble`'s.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.fingerprint import files_mark
from kandinsky.checkpoint.folder import visible_files
from kandinsky.checkpoint.load import (
    Shard,
    check_fit,
    dit_config,
    load_weights,
    open_checkpoint,
    read_config,
    read_tensors,
)
from kandinsky.checkpoint.standing import faults_of
from kandinsky.config import DiTConfig
from kandinsky.errors import CheckpointError
from kandinsky.loading.kept import kept
from kandinsky.model.dit import DiT
from kandinsky.model.precision import FAST, Precision
from kandinsky.model.sizes import is_quantised
from kandinsky.text.encoder import TextEncoder
from kandinsky.text.t5 import EMBEDDING, T5Config, T5Encoder
from kandinsky.text.tokenizer import BackendTokenizer, json_of_transformers
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.decoder_weights import DecoderConfig
from kandinsky.vae.float8 import Convert, as_they_are, where_it_runs
from kandinsky.vae.rows import RowsOf, all_rows
from kandinsky.vae.shapes import decoder_shapes

PREFIX = "decoder."
"""Of the decoder's tensors in the VAE's file."""


def load_dit(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    build: Callable[[DiTConfig], DiT] = DiT,
    shard: Shard | None = None,
    progress: bool = False,
) -> DiT:
    """The DiT with its weights, or one rank's part of them, on `device` in `dtype`.

    Args:
        build: makes the module from the sizes, which come from the checkpoint.
        shard: which part of which tensor to read; None reads all.
    """
    with torch.device("meta"):
        dit = build(dit_config(checkpoint))
    if is_quantised(checkpoint.shapes):
        for block in dit.blocks:
            FAST.convert_block_(block)
    load_weights(dit, checkpoint, device=device, dtype=dtype, shard=shard, progress=progress)
    return dit


def load_t5(folder: Path, *, device: torch.device, dtype: torch.dtype, progress: bool = False) -> T5Encoder:
    """T5 straight to `device` in `dtype`; its embedding, of which a prompt needs 224 rows, stays on the host.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights are damaged or do not fit `config.json`.
    """
    config = read_config(folder, "model_type", "t5")
    checkpoint = open_checkpoint(folder)
    try:
        with torch.device("meta"):
            model = T5Encoder(T5Config.from_mapping(config))
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    # Input and shared embedding are one tensor; files hold it under either name.
    tied, source = EMBEDDING if EMBEDDING[1] in checkpoint.shapes else reversed(EMBEDDING)
    settings = {"device": device, "dtype": dtype, "on_host": EMBEDDING, "progress": progress}
    load_weights(model, checkpoint, aliases={tied: source}, **settings)
    return model


def load_tokenizer(folder: Path) -> BackendTokenizer:
    """T5's tokenizer as transformers builds it of a folder's files, which is kept: its package is slow to import.

    Raises:
        FileNotFoundError: it is not there.
        CheckpointError: it is damaged.
    """
    if not (folder / "spiece.model").is_file():
        raise FileNotFoundError(f"tokenizer not found: {folder / 'spiece.model'}")
    if wrong := faults_of("tokenizer", folder).all:
        raise CheckpointError(f"the tokenizer is damaged: {'; '.join(wrong)}")
    versions = [f"{package} {version(package)}" for package in ("transformers", "tokenizers")]
    key = files_mark([folder / name for name in visible_files(folder)], *versions)
    open_transformers = partial(_transformers_tokenizer, folder)
    content = kept(key, lambda: json_of_transformers(open_transformers()).encode(), kind="tokenizers")
    return BackendTokenizer.from_json(content.decode(), open_transformers)


def _transformers_tokenizer(folder: Path) -> Any:
    from transformers import T5Tokenizer

    try:
        return T5Tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of whichever package reads the file that is damaged
        raise CheckpointError(f"{folder} holds no T5 tokenizer: {type(error).__name__}: {error}") from error


def load_text_encoder(
    folder: Path,
    tokenizer_folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    text_tokens: int,
    progress: bool = False,
) -> TextEncoder:
    """T5 and its tokenizer, weights where they stay; see `load_t5`, `load_tokenizer`."""
    model = load_t5(folder, device=device, dtype=dtype, progress=progress)
    return TextEncoder(model, load_tokenizer(tokenizer_folder), text_tokens=text_tokens)


def load_vae(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    memory_saving: bool = False,
    rows_of: RowsOf = all_rows,
    staged: bool = False,
    kernels: str = "auto",
    convert: Convert = as_they_are,
    progress: bool = False,
) -> VideoAutoencoder:
    """The VAE that decodes on `device` in `dtype`.

    Args:
        memory_saving, rows_of, staged, kernels, convert: as `VideoAutoencoder` takes them.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights are damaged or do not fit `config.json`.
    """
    mapping = read_config(folder, "_class_name", "AutoencoderKLCogVideoX")
    checkpoint = open_checkpoint(folder)
    config = _decoder_config(folder, mapping)
    shapes = {PREFIX + name: shape for name, shape in decoder_shapes(config).items()}
    check_fit(checkpoint, shapes, prefix=PREFIX)
    place = torch.device("cpu") if staged else device
    tensors = read_tensors(checkpoint, shapes, device=place, dtype=dtype, progress=progress)
    return VideoAutoencoder(
        config,
        {name.removeprefix(PREFIX): value for name, value in tensors.items()},
        partial(_open_autoencoder, mapping, checkpoint, place, dtype),
        device=device,
        memory_saving=memory_saving,
        rows_of=rows_of,
        staged=staged,
        kernels=kernels,
        convert=convert,
    )


def vae_conversion(precision: Precision, *, agree: Callable[[bool], bool] = bool) -> Convert:
    """What a precision makes of the decoder's weights: float8 where that runs, unless it is exact.

    Args:
        agree: as `float8.where_it_runs` takes it.
    """
    return as_they_are if precision.is_exact else partial(where_it_runs, agree=agree)


def _decoder_config(folder: Path, mapping: Mapping[str, Any]) -> DecoderConfig:
    try:
        return DecoderConfig.from_mapping(mapping)
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error


def _open_autoencoder(
    config: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
) -> Any:
    """diffusers' module."""
    from diffusers import AutoencoderKLCogVideoX

    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX.from_config(dict(config))
    assert isinstance(vae, AutoencoderKLCogVideoX)
    load_weights(vae, checkpoint, device=device, dtype=dtype)
    return vae
