"""diffusers' names for what this library does under its own: `from_pretrained`, `save_pretrained`, `to`.

They are thin: loading is `factory.get_T2V_pipeline`, which is imported at the call, because it imports the pipeline.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from kandinsky.pipeline import Kandinsky4T2VPipeline


class Pretrained:
    """Base of the pipeline."""

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo: str | os.PathLike[str],
        *,
        device_map: str | torch.device | Mapping[str, str | torch.device] = "cuda",
        **options: Any,
    ) -> "Kandinsky4T2VPipeline":
        """Load a pipeline.

        Args:
            folder_or_repo: a folder in the published layout (nothing is downloaded), or `owner/name` on the hub: that
                of the published DiT, which gets the other parts from where they are published, or one that holds a
                folder of `save_pretrained`.
            device_map: as for `get_T2V_pipeline`.
            options: its other arguments; `revision` is that of every hub repository by its name.

        Raises:
            ValueError: neither a folder nor the name of a repository; or as `get_T2V_pipeline`.
            FileNotFoundError, CheckpointError: as `get_T2V_pipeline`.
        """
        from kandinsky.config import FLASH_512
        from kandinsky.factory import get_T2V_pipeline
        from kandinsky.hub import fetch

        place = str(folder_or_repo)
        if Path(place).is_dir():
            return get_T2V_pipeline(device_map, cache_dir=place, **{**options, "local_files_only": True})
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", place):
            raise ValueError(f"folder_or_repo={place!r}: allowed is a folder that exists, or owner/name on the hub")
        if place == FLASH_512.dit_repository:
            return get_T2V_pipeline(device_map, **options)
        revision = dict(options.pop("revision", None) or {})
        folder = fetch(place, revision.get(place), FLASH_512, local_files_only=options.pop("local_files_only", False))
        return get_T2V_pipeline(device_map, cache_dir=folder, local_files_only=True, **options)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the weights as they are into `folder`, made if it is not there, in the published layout (safetensors).

        Raises:
            ValueError: the weights are quantised or shared out over processes: load exact ones in one process.
        """
        from kandinsky.hub import converted_file
        from kandinsky.safetensors_file import write_module
        from kandinsky.text_encoder import save_t5

        pipe = _whole(self, "save_pretrained")
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / pipe.model_set.dit_file).unlink(missing_ok=True)  # what is converted counts as a copy of this one
        converted_file(target, pipe.model_set, "fast").unlink(missing_ok=True)
        write_module(converted_file(target, pipe.model_set, "exact"), pipe.dit.state_dict())
        save_t5(pipe.text_encoder.model, target / "text_encoder")
        pipe.vae.autoencoder.save_pretrained(target / "vae", safe_serialization=True)
        tokenizer = pipe.text_encoder.tokenizer
        tokenizer.save_pretrained(target / "tokenizer")
        shutil.copyfile(tokenizer.vocab_file, target / "tokenizer" / "spiece.model")
        (target / "scheduler").mkdir(exist_ok=True)
        config = json.dumps(dict(pipe.schedule.config), indent=2, sort_keys=True)
        (target / "scheduler" / "scheduler_config.json").write_text(config + "\n")

    def to(self, device: str | torch.device | Mapping[str, str | torch.device]) -> Self:
        """Move the models, keeping their dtype, and choose attention and kernels anew as "auto" does.

        Args:
            device: as `device_map` of `get_T2V_pipeline`.

        Raises:
            ValueError: no such device, or the weights are quantised, shared out over processes, or not all resident.
        """
        from kandinsky.assembly import configure_
        from kandinsky.devices import check_device_map
        from kandinsky.model.operations import PLAIN, choose_operations
        from kandinsky.vae.autoencoder import VideoAutoencoder

        devices = check_device_map(device)
        pipe = _whole(self, "to")
        if not pipe.is_resident:
            raise ValueError('to: weights come and go; load with memory="resident"')
        operations = choose_operations("auto", devices["dit"], quantise=False)
        pipe.dit.to(devices["dit"])
        pipe.text_encoder.to(devices["text_embedder"])
        torch.nn.Module.to(pipe.vae.autoencoder, devices["vae"])
        pipe.vae = VideoAutoencoder.from_diffusers(pipe.vae.autoencoder, memory_saving=pipe.vae.memory_saving)
        with torch.inference_mode():
            pipe.modulation = pipe.dit.modulation(
                torch.tensor(pipe.schedule.timesteps, device=pipe.dit.device)[:, None]
            )
        configure_(pipe.dit, operations, attention="auto", ranks=pipe.team)
        if pipe.vae_source is not None:
            pipe.vae_source = replace(pipe.vae_source, device=str(devices["vae"]))
        if pipe.origin is not None:
            pipe.origin = replace(
                pipe.origin,
                devices={name: place.type for name, place in devices.items()},
                dtype=str(pipe.dit.dtype).removeprefix("torch."),
                attention=pipe.dit.attention.name,
                kernels="torch" if operations is PLAIN else "triton",
            )
        return self


def _whole(pipe: Any, method: str) -> Any:
    """The pipeline, if all of its weights are here and as they were loaded.

    Raises:
        ValueError: they are not.
    """
    parts = [*pipe.dit.buffers(), *(pipe.text_encoder.model.buffers() if pipe.text_encoder is not None else ())]
    if pipe.team.size > 1 or any(part.itemsize == 1 for part in parts):
        raise ValueError(
            f'{method}: the weights are quantised or shared out over processes; load with precision="exact" and '
            "text_encoder_int8=False in one process"
        )
    return pipe
