"""The YAML file of `conf_path`, in the published schema, checked and flattened.

    vae: {checkpoint_path}
    text_embedder: {emb_size, tokens_lenght, params: {checkpoint_path, tokenizer_path}}
    dit: {scheduler, checkpoint_path, params: {model_dim, ...}}
    resolution: 512

Every key is optional. Sizes are read off the checkpoints; those given here are compared with them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kandinsky.config import DiTConfig
from kandinsky.user_files.lines import read_yaml

_DIT_SIZES = tuple(f.name for f in fields(DiTConfig))
_PATHS = {
    "vae": ("vae", "checkpoint_path"),
    "text_encoder": ("text_embedder", "params", "checkpoint_path"),
    "tokenizer": ("text_embedder", "params", "tokenizer_path"),
    "scheduler": ("dit", "scheduler"),
    "dit": ("dit", "checkpoint_path"),
}
_NUMBERS = (("resolution",), ("text_embedder", "emb_size"), ("text_embedder", "tokens_lenght"))
_KEYS = {*_PATHS.values(), *_NUMBERS, *(("dit", "params", name) for name in _DIT_SIZES)}


@dataclass(frozen=True)
class ConfFile:
    """What a configuration file says; what it leaves out is None or empty."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    resolution: int | None = None
    text_tokens: int | None = None
    text_dim: int | None = None
    dit_sizes: Mapping[str, Any] = field(default_factory=dict)

    def check_sizes(self, config: DiTConfig) -> None:
        """Compare the sizes given in the file with those of the checkpoint.

        Raises:
            ValueError: names the key and both numbers.
        """
        given = dict(self.dit_sizes) | ({} if self.text_dim is None else {"in_text_dim": self.text_dim})
        for name, value in given.items():
            found = getattr(config, name)
            if (tuple(value) if isinstance(value, list) else value) != found:
                raise ValueError(f"conf_path gives {name}={value!r}, the DiT checkpoint has {found!r}")


def read_conf(conf_path: str | os.PathLike[str] | None) -> ConfFile:
    """Read and check a configuration file; None is an empty one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text in UTF-8, not YAML, or has a key that the schema has not.
    """
    if conf_path is None:
        return ConfFile()
    path = Path(conf_path)
    if not path.is_file():
        raise FileNotFoundError(f"conf_path={str(path)!r}: no such file")
    content = read_yaml(path, name=f"conf_path={str(path)!r}")
    values = dict(_flatten(content if content is not None else {}, (), path))
    for key, value in values.items():
        if key in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"conf_path={str(path)!r}: {'.'.join(key)}={value!r} must be a whole number")
        if key in _PATHS.values() and not isinstance(value, str):
            raise ValueError(f"conf_path={str(path)!r}: {'.'.join(key)}={value!r} must be a path")
    return ConfFile(
        paths={name: Path(values[key]) for name, key in _PATHS.items() if key in values},
        resolution=values.get(("resolution",)),
        text_tokens=values.get(("text_embedder", "tokens_lenght")),
        text_dim=values.get(("text_embedder", "emb_size")),
        dit_sizes={name: values[key] for name in _DIT_SIZES if (key := ("dit", "params", name)) in values},
    )


def _flatten(content: object, prefix: tuple[str, ...], path: Path) -> list[tuple[tuple[str, ...], Any]]:
    """Leaves of nested mappings with their key paths; a key outside the schema is an error."""
    if prefix in _KEYS:
        return [] if content is None else [(prefix, content)]
    allowed = sorted({key[len(prefix)] for key in _KEYS if key[: len(prefix)] == prefix})
    where = ".".join(prefix) or "the top level"
    if not isinstance(content, Mapping):
        raise ValueError(f"conf_path={str(path)!r}: {where} must be a mapping with keys among {', '.join(allowed)}")
    unknown = [key for key in content if key not in allowed]
    if unknown:
        raise ValueError(
            f"conf_path={str(path)!r}: unknown key {unknown[0]!r} in {where}; allowed: {', '.join(allowed)}"
        )
    return [leaf for key, value in content.items() for leaf in _flatten(value, (*prefix, key), path)]
