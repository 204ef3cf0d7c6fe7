"""What is left of a generation that was sampled before, finished by all ranks of a team: each decodes its part.

The frames are those of the team that was interrupted, to the bit, and no second VAE is loaded. One process does the
same by `decode_to`.
"""

from dataclasses import replace
from typing import cast

import torch

from kandinsky.model.isolation import isolated
from kandinsky.output.between import smoothed
from kandinsky.output.options import Output
from kandinsky.output.remaining import Remaining
from kandinsky.output.result import GenerationResult
from kandinsky.runner import Runner

Facts = tuple[torch.Size, torch.dtype, Output]
"""Of latents: shape, dtype, and what is made of them."""


def finish_rest(runner: Runner, remaining: Remaining | None) -> GenerationResult | None:
    """Decode and write what is left; to be called by one thread of each rank.

    Args:
        remaining: on the team's first rank; None on the others, which help.

    Returns:
        The result; None on ranks that do not write.

    Raises:
        ValueError: the latents are not those of this VAE.
        DecodeError: it failed again.
    """
    team, facts, given = runner.team, None, None
    if remaining is not None:
        given = remaining.latents
        facts = (given.shape, given.dtype, remaining.output)
    shape, dtype, output = team.share(cast("Facts", facts))
    latents = team.share_tensor(given, tuple(shape), device=runner.dit.device, dtype=dtype)
    if remaining is not None:
        return runner.finisher.finish(replace(remaining, latents=latents))
    if runner.vae is not None:
        with isolated(), torch.inference_mode():
            for _ in smoothed(runner.vae, latents, output, memory_saving=None):
                pass
    return None
