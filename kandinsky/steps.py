"""What happens after each step of sampling: the progress bar, and a callback that may stop the run."""

from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky.ranks import Ranks

OnStepEnd = Callable[[int, int, Tensor], bool | None]
"""(steps done, 1 to `total`; total; latents [T, H, W, C] on the DiT's device) -> False to stop the run."""


class StoppedError(RuntimeError):
    """`callback_on_step_end` returned False; nothing was written."""


def check_callback(callback: object) -> None:
    """Refuse what cannot be called.

    Raises:
        ValueError: names the argument.
    """
    if callback is not None and not callable(callback):
        raise ValueError(f"callback_on_step_end={callback!r}: allowed is a function, or None")


def go_on(_step: int, _total: int, _latents: Tensor) -> None:
    """For ranks that were given no callback while the main one was."""


class Steps:
    """A context manager around sampling, and `sampler.sample`'s `on_step`.

    Args:
        total: number of steps.
        team: ranks that sample together; the first one's `on_step_end` is asked, and all stop together.
        on_step_end: the caller's, if there is one on any rank.
        description: of the bar.
        progress: whether to show it.
    """

    def __init__(self, total: int, *, team: Ranks, on_step_end: OnStepEnd | None, description: str, progress: bool):
        self.total = total
        self._team = team
        self._on_step_end = on_step_end
        self._bar = tqdm(total=total, desc=description, disable=not progress, leave=False)

    def __call__(self, index: int, latents: Tensor) -> None:
        """A step is done.

        Raises:
            StoppedError: the callback returned False.
        """
        if latents.device.type == "cuda":
            torch.cuda.synchronize(latents.device)  # else the bar would show launches, and Ctrl-C wait for all steps
        self._bar.update()
        if self._on_step_end is not None and not self._goes_on(self._on_step_end, index + 1, latents):
            raise StoppedError(f"callback_on_step_end stopped the run after step {index + 1} of {self.total}")

    def __enter__(self) -> "Steps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def _goes_on(self, on_step_end: OnStepEnd, step: int, latents: Tensor) -> bool:
        answer = on_step_end(step, self.total, latents) if self._team.is_main else None
        return self._team.share(answer is not False)
