"""What a pipeline can do with low-rank weights, under diffusers' names: load, weigh, unload.

Merging is `adapters`' business. Of several processes that make a video together, each calls the same.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from threading import RLock

from kandinsky.checkpoint.lora import fetch_lora, linears_of, read_lora
from kandinsky.errors import shown
from kandinsky.loading.adapters import base_of, with_adapters
from kandinsky.loading.of_parts import OfParts
from kandinsky.loading.parts import Adapter, Parts
from kandinsky.loading.settings import weight_of
from kandinsky.model.isolation import isolated
from kandinsky.user_files.paths import user_path


class Adaptable(OfParts):
    """Parts whose DiT may be given low-rank weights.

    Args:
        parts: everything that runs.
    """

    def __init__(self, parts: Parts):
        super().__init__(parts)
        self._lock = RLock()

    @property
    def loras(self) -> dict[str, float]:
        """Weight of each LoRA that is loaded, by its name; 0 is not merged."""
        return {name: each.weight for name, each in self._parts.adapters.items()}

    def load_lora_weights(
        self,
        path_or_repo: str | os.PathLike[str],
        adapter_name: str | None = None,
        weight: float = 1.0,
        *,
        weight_name: str | None = None,
        revision: str | None = None,
    ) -> None:
        """Merge low-rank weights into the transformer; those that are merged already stay.

        Args:
            path_or_repo: a `.safetensors` file, PEFT's folder, or `owner/name` on the hub.
            adapter_name: for `set_adapters` and records; None is the file's or folder's name without its ending.
            weight: how much of it; 0 loads it and merges nothing.
            weight_name: of the file in a repository that has several.
            revision: branch, tag or commit of the repository.

        Raises:
            ValueError: the name is taken, the weight is no finite number, or this pipeline's weights cannot be merged
                with anything; nothing has changed.
            FileNotFoundError: there is no such file, and no such repository.
            CheckpointError: the file is damaged, is no LoRA, or belongs to another model; nothing has changed.
        """
        amount = weight_of("weight", weight)
        path = user_path(path_or_repo, "path_or_repo")
        name = path.stem if adapter_name is None else adapter_name
        if not isinstance(name, str) or not name:
            raise ValueError(f"adapter_name={adapter_name!r}: allowed is a text that is not empty, or None")
        with self._lock:
            if name in self._parts.adapters:
                raise ValueError(f"adapter_name={name!r}: is loaded already; allowed is another name")
            base = base_of(self._parts)
            if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(path_or_repo)):
                path = fetch_lora(str(path_or_repo), weight_name=weight_name, revision=revision)
            lora = read_lora(path, linears_of(base.checkpoint.shapes))
            self._adapt({**self._parts.adapters, name: Adapter(lora, amount)})

    def set_adapters(self, names: str | Sequence[str], weights: float | Sequence[float] | None = None) -> None:
        """Merge these LoRAs of those that are loaded, and no others.

        Args:
            names: one or several, or none.
            weights: one for all or one for each; None is 1.

        Raises:
            ValueError: a name is not loaded, or there are not as many weights as names; nothing has changed.
        """
        chosen = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
        if not all(isinstance(name, str) for name in chosen):
            raise ValueError(f"names={shown(names)}: allowed is the name of a LoRA, or a list of such names")
        given = [1.0 if weights is None else weights] * len(chosen) if not isinstance(weights, Sequence) else weights
        if len(given) != len(chosen) or len(set(chosen)) != len(chosen):
            raise ValueError(f"weights={weights!r}: allowed is one for each of the names {chosen}, each named once")
        self.use_adapters(dict(zip(chosen, given, strict=True)))

    def use_adapters(self, weights: Mapping[str, object]) -> None:
        """As `set_adapters`, with the weight of each name.

        Raises:
            ValueError: as there.
        """
        with self._lock:
            known = self._parts.adapters
            unknown = [name for name in weights if name not in known]
            if unknown:
                loaded = ", ".join(map(repr, known)) or "none"
                raise ValueError(f"LoRA {unknown[0]!r} is not loaded; loaded are {loaded}")
            amounts = {name: weight_of(f"weight of {name}", value) for name, value in weights.items()}
            self._adapt({name: Adapter(each.lora, amounts.get(name, 0.0)) for name, each in known.items()})

    def unload_lora_weights(self) -> None:
        """Take all low-rank weights out: the transformer has its own weights again, bit for bit."""
        with self._lock:
            if self._parts.adapters:
                self._adapt({})

    def _adapt(self, wanted: Mapping[str, Adapter]) -> None:
        with isolated():
            self._parts = with_adapters(self._parts, wanted)
