"""Where the weights of a load come from: arguments that name files, checked, and then the files that they mean.

`Sources` is made of arguments alone; only `weights_of` looks at weights, and may download some.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kandinsky.checkpoint.conf import ConfFile, read_conf
from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths, check_given, fetch, locate
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.config import FLASH_512, MODEL_SETS, ModelSet
from kandinsky.model.precision import Precision
from kandinsky.user_files.paths import user_path

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where weights come from.

    Args:
        repository: on the hub, whose files come into the hub's own cache; None takes those in `folder`.
        folder: where weights stand, and what is missing is downloaded to.
        given: components that have a place of their own.
        conf: of `conf_path`, empty if there is none.
        resolution: of the published model set, taken where none is declared.
        local_files_only: never ask the hub.
        revision: of each repository that has one.
    """

    repository: str | None
    folder: Path
    given: Mapping[str, Path]
    conf: ConfFile
    resolution: int
    local_files_only: bool
    revision: Mapping[str, str]


@dataclass(frozen=True)
class Weights:
    """What was found: the model set, the paths of all its components, and the DiT's checkpoint, open."""

    model_set: ModelSet
    paths: WeightPaths
    checkpoint: Checkpoint


def sources_of(
    explicit: Mapping[str, FilePath | None],
    *,
    cache_dir: FilePath,
    conf_path: FilePath | None,
    resolution: int,
    repository: str | None,
    local_files_only: bool,
    revision: str | Mapping[str, str] | None,
) -> Sources:
    """What these arguments of `get_T2V_pipeline` mean; its docstring explains them.

    Args:
        explicit: path of each component; None where none is given.
        repository: see `Sources`.

    Raises:
        ValueError: an argument is not what it may be.
        FileNotFoundError: a path that is given for a component or for `conf_path` is not there.
    """
    folder = user_path(cache_dir, "cache_dir")
    conf = read_conf(None if conf_path is None else user_path(conf_path, "conf_path"))
    given = {name: user_path(path, "conf_path") for name, path in conf.paths.items()}
    given |= {name: user_path(path, f"{name}_path") for name, path in explicit.items() if path is not None}
    resolution = resolution if conf.resolution is None else conf.resolution
    if resolution not in MODEL_SETS:
        raise ValueError(f"resolution={resolution!r}: allowed is {', '.join(map(str, MODEL_SETS))}")
    published = MODEL_SETS[resolution]
    asked = (published.dit_repository, published.components_repository) if repository is None else (repository,)
    revisions = revisions_of(revision, asked)
    check_given(given)
    return Sources(
        repository=repository,
        folder=folder,
        given=given,
        conf=conf,
        resolution=resolution,
        local_files_only=local_files_only,
        revision=revisions,
    )


def pretrained(place: str, options: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The repository, if it is one, and the other arguments of `settings_of` that load what is at one place.

    Args:
        place: a folder, or `owner/name` on the hub.
        options: arguments of `settings_of`.

    Raises:
        ValueError: it is neither, or `cache_dir` is given too and would not be used.
    """
    is_folder = Path(place).is_dir()
    if not is_folder and not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
        raise ValueError(f"folder_or_repo={place!r}: allowed is a folder that exists, or owner/name on the hub")
    if not is_folder and place == FLASH_512.dit_repository:
        return None, {**options}
    if "cache_dir" in options:
        raise ValueError(
            f"cache_dir={options['cache_dir']!r}: all weights come from {place!r}; it is allowed with "
            f"{FLASH_512.dit_repository!r}, whose files are downloaded there"
        )
    return (None, {**options, "cache_dir": place, "local_files_only": True}) if is_folder else (place, {**options})


def revisions_of(revision: str | Mapping[str, str] | None, repositories: Sequence[str]) -> Mapping[str, str]:
    """The revision of each repository: one for all, or as they are named; those that are not get their newest.

    Raises:
        ValueError: it is neither a text nor a mapping, or names another repository.
    """
    if isinstance(revision, str):
        return dict.fromkeys(repositories, revision)
    if not isinstance(revision, Mapping | None):
        raise ValueError(f"revision={revision!r}: allowed are a text for all repositories, a mapping, and None")
    unknown = [name for name in revision or {} if name not in repositories]
    if unknown:
        raise ValueError(f"revision names {unknown[0]!r}; the repositories are {', '.join(repositories)}")
    return revision or {}


def weights_of(sources: Sources, precision: Precision) -> Weights:
    """Find the files, downloading what is missing, and open the DiT's.

    Args:
        precision: whose converted DiT is preferred to the published file.

    Raises:
        ValueError: `conf_path` gives other sizes than the checkpoint has.
        FileNotFoundError: weights are missing and cannot be downloaded.
        CheckpointError: a file is damaged or belongs to something else.
    """
    if sources.repository is not None:
        sources = _fetched(sources, sources.repository)
    paths = locate(
        sources.folder,
        model_set=_model_set(sources),
        given=sources.given,
        local_files_only=sources.local_files_only,
        revision=sources.revision,
        precision=precision,
    )
    checkpoint = open_checkpoint(paths.dit)
    sources.conf.check_sizes(dit_config(checkpoint))
    return Weights(_model_set(sources), paths, checkpoint)  # a model set may have come with the weights


def _fetched(sources: Sources, repository: str) -> Sources:
    """The same, of a folder that has what is in the repository."""
    wanted, local = sources.revision.get(repository), sources.local_files_only
    folder = fetch(repository, wanted, FLASH_512, local_files_only=local)
    return dataclasses.replace(sources, repository=None, folder=folder, local_files_only=True, revision={})


def _model_set(sources: Sources) -> ModelSet:
    """What the first folder that does so declares its weights to be, else the published set.

    The DiT was trained for it, so a folder of its own is asked before the one of all weights.
    """
    dit, conf = sources.given.get("dit"), sources.conf
    folders = [sources.folder] if dit is None else [dit if dit.is_dir() else dit.parent, sources.folder]
    declared = (own for folder in folders if (own := read_model_set(folder)))
    model_set = next(declared, MODEL_SETS[sources.resolution])
    return model_set if conf.text_tokens is None else dataclasses.replace(model_set, text_tokens=conf.text_tokens)
