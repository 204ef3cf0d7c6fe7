"""What a server allows and says, checked: made by the command, read by the HTTP side."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kandinsky.config import FLASH_512, ModelSet
from kandinsky.serving.keys import Keys

MODEL = "kandinsky-4.0-t2v-flash"
"""Name of the model in the protocol."""
MAX_EXTENSION = 60
"""Seconds that a job may add to a video, unless the server's own limit says otherwise."""
DEMO_SIZE = (672, 384)
"""Default of the published model set, as in its demonstration."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Of one server.

    Args:
        model_set: what its weights were trained for.
        precision: that its workers load.
        keys: who may.
        hosts: names in the Host header that are let in, besides addresses and localhost.
        max_queue, max_jobs_of_key: jobs that may wait, and that one key may have waiting or running.
        max_prompt: characters.
        max_body: bytes of a request.
        max_seconds: of a video; never more than the model set's.
        keep_days: for which finished jobs are kept; None is for ever.
        log_prompts: prompts may stand in the log.
        loras: the low-rank weights that workers have, each with its usual weight.
    """

    model_set: ModelSet = FLASH_512
    precision: str = "exact"
    keys: Keys = field(default_factory=Keys)
    hosts: frozenset[str] = frozenset()
    max_queue: int = 1000
    max_jobs_of_key: int = 100
    max_prompt: int = 4000
    max_body: int = 16 * 2**20
    max_seconds: int | None = None
    keep_days: float | None = 7
    log_prompts: bool = False
    loras: Mapping[str, float] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """Seconds that a video may have."""
        most = self.model_set.max_seconds
        return most if self.max_seconds is None else min(most, self.max_seconds)

    @property
    def longest_extension(self) -> int:
        """Seconds that a job may add to a video."""
        return MAX_EXTENSION if self.max_seconds is None else self.max_seconds

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a video that does not say."""
        return DEMO_SIZE if DEMO_SIZE in self.model_set.sizes else self.model_set.sizes[0]
