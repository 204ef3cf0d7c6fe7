"""The encoder of V2A behind one function: a video and a prompt to their embeddings.

It is a language model that sees videos (THUDM/cogvlm2-video-llama3-chat, 12 billion parameters). transformers does not
have it: its Python code is a part of the repository and runs with all rights of the user. Therefore it is loaded only
where somebody has said `trust_remote_code=True`, from a folder that is there or at a commit that was named, and it is
never asked for where embeddings are given or kept (see `embeddings`).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kandinsky.audio.embeddings import TEXT_ROWS
from kandinsky.audio.unet import ENCODER_DIM
from kandinsky.checkpoint.json_file import json_of
from kandinsky.errors import CheckpointError

ENCODER_REPOSITORY = "THUDM/cogvlm2-video-llama3-chat"
Encode = Callable[[Tensor, str], tuple[Tensor, Tensor]]
"""(uint8 frames [3, frames, height, width], prompt) -> (text [100, 4096], video [frames, 4096])."""
TEXT, VIDEO = 0, 1
"""Types of tokens."""


@dataclass(frozen=True)
class Encoder:
    """The published way to ask the model.

    Args:
        model: with `build_conversation_input_ids`, and hidden states of 4096 channels.
        tokenizer: of the model.
    """

    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def __call__(self, video: Tensor, prompt: str) -> tuple[Tensor, Tensor]:
        """Embeddings of a video and of a prompt, each asked for alone, on the model's device.

        Args:
            video: uint8 `[3, frames, height, width]`.
            prompt: any text.

        Returns:
            text `[100, 4096]`, zeros after its end, and video `[frames, 4096]`.
        """
        text = self._states(prompt, [], TEXT)[:TEXT_ROWS]
        text = torch.cat([text, text.new_zeros(TEXT_ROWS - len(text), text.shape[1])])
        frames = self._states("", [video], VIDEO)  # several rows for each frame
        return text, frames.unflatten(0, (video.shape[1], -1)).mean(1)

    def _states(self, query: str, images: Sequence[Tensor], kind: int) -> Tensor:
        """The second-to-last hidden states of the tokens of one kind, `[tokens, 4096]`."""
        made = self.model.build_conversation_input_ids(
            tokenizer=self.tokenizer, query=query, images=list(images), history=[], template_version="base"
        )
        device, dtype = self.model.device, self.model.dtype
        inputs = {name: made[name][None].to(device) for name in ("input_ids", "token_type_ids", "attention_mask")}
        if images:
            inputs["images"] = [[made["images"][0].to(device, dtype)]]
        states = self.model(**inputs, output_hidden_states=True).hidden_states[-2]
        return states[0, inputs["token_type_ids"][0] == kind]


def check_trust(trust_remote_code: object) -> None:
    """Refuse to run code that nobody has vouched for.

    Raises:
        ValueError: says what would run, and what goes without it.
    """
    if trust_remote_code is not True:
        raise ValueError(
            f"trust_remote_code={trust_remote_code!r}: no embeddings of this video are given or kept, and their "
            f"encoder ({ENCODER_REPOSITORY}) is Python code from the hub that runs with all of your rights. Read it, "
            "then allow it with trust_remote_code=True (--trust-remote-code); or give embeddings (--embeddings), which "
            "need no encoder"
        )


def check_revision(revision: str | None) -> None:
    """Refuse a download of code that may be another one tomorrow.

    Raises:
        ValueError: it is not the name of one commit.
    """
    if revision is None or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"encoder_revision={revision!r}: the encoder is code, and is downloaded at one commit only: allowed are "
            f"the 40 hexadecimal digits of a commit of {ENCODER_REPOSITORY} that you have looked at"
        )


def check_own_code(folder: Path) -> None:
    """Look whether an encoder's folder has its own code, instead of naming another repository for it.

    Raises:
        FileNotFoundError: there is no configuration.
        CheckpointError: it names another repository, whose code would be fetched as it is today.
    """
    config = folder / "config.json"
    found = json_of(config, what="a configuration of the encoder")
    elsewhere = [name for name in found.get("auto_map", {}).values() if "--" in str(name)]
    if elsewhere:
        raise CheckpointError(f"{config} takes its code from elsewhere ({elsewhere[0]!r}): it has to be in the folder")


def load_encoder(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Encoder:
    """The encoder in a folder, run by its own code: call `check_trust` before.

    Raises:
        FileNotFoundError, CheckpointError: there is none, or it is not this encoder, or does not run here.
    """
    check_own_code(folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trusted = {"trust_remote_code": True, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **trusted)
    except Exception as error:  # of code that is not ours, and of packages that it wants
        raise CheckpointError(f"the encoder in {folder} does not load: {type(error).__name__}: {error}") from error
    if model.config.hidden_size != ENCODER_DIM:
        raise CheckpointError(f"the encoder in {folder} has {model.config.hidden_size} channels, not {ENCODER_DIM}")
    return Encoder(model.to(device).requires_grad_(False).eval(), tokenizer)
