"""One job after the other through a loaded pipeline: what runs in every worker, wherever that is.

While a file is being finished the next job begins, as in a batch. Previews are made only while somebody looks: each is
one latent frame through the VAE. What an earlier worker left in a job's folder is used: a complete file is the result,
sampled latents are decoded.
"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from kandinsky.atomic import remove_partials
from kandinsky.errors import RecordError, StoppedError
from kandinsky.output.remaining import remaining_of
from kandinsky.output.unfinished import SUFFIX, load_unfinished
from kandinsky.output.video import TAGS_SUFFIX
from kandinsky.parallel.watchdog import is_loss
from kandinsky.request import Request, check_loras, check_targets
from kandinsky.serving.failures import failure_of
from kandinsky.serving.group import Work, begin
from kandinsky.serving.messages import Done, Free, FromWorker, Make, Stage, Step, Stopped
from kandinsky.serving.rest import finish_rest

if TYPE_CHECKING:
    from kandinsky.pipeline import Kandinsky4T2VPipeline

QUALITY = 80
"""Of a preview's JPEG."""


class BrokenError(Exception):
    """The pipeline cannot be used any more: the worker must end."""


class Maker:
    """Makes jobs and says what becomes of them.

    Args:
        pipe: loaded; of several ranks the main one's.
        say: sends a message; may be called from two threads.
    """

    def __init__(self, pipe: "Kandinsky4T2VPipeline", say: Callable[[FromWorker], object]):
        self._pipe = pipe
        self._usual_loras = pipe.loras
        self._together = False
        self._lock = Lock()
        self._say = say
        self._cancelled: set[str] = set()
        self._watched: set[str] = set()
        self._finisher = ThreadPoolExecutor(1, "finisher")

    def cancel(self, job_id: str) -> None:
        """Stop a job after its step; from any thread."""
        with self._lock:
            self._cancelled.add(job_id)

    def watch(self, job_id: str, wanted: bool) -> None:
        """Make previews of a job, or no more; from any thread."""
        with self._lock:
            (self._watched.add if wanted else self._watched.discard)(job_id)

    def make(self, order: Make) -> None:
        """Make a job; returns when the next one can begin.

        Raises:
            BrokenError: the pipeline is not to be used again; what became of the job was said.
        """
        if order.preview:
            self.watch(order.job_id, True)
        with self._ending(order.job_id):
            folder = Path(order.folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._together = False
            if order.asked.overlap is not None:
                self._extend(order, folder)
            else:
                request = order.asked.request(folder, model_set=self._pipe.model_set)
                check_targets(request)
                if not self._use_what_is_there(order, folder, request):
                    self._sample(order, request)
        self._say(Free())

    def _begin(self, order: Make, kind: Literal["request", "extension", "rest"]) -> None:
        """Merge what a job asks for, else what was there from the beginning, whatever the job before had; of several
        ranks all begin with this.

        Raises:
            ValueError: it asks for LoRAs that are not here; nothing has begun.
        """
        loras = self._usual_loras if order.asked.loras is None else order.asked.loras
        check_loras(loras, self._pipe.loras)
        self._together = self._pipe.team.size > 1
        begin(self._pipe, Work(order.job_id, kind, loras if self._pipe.loras and kind != "rest" else None))

    def close(self) -> None:
        """Wait for files that are being finished."""
        self._finisher.shutdown()

    def _use_what_is_there(self, order: Make, folder: Path, request: Request) -> bool:
        """Whether an earlier worker's work was enough to finish the job."""
        (job,) = request.jobs
        assert job.path is not None
        for name in (job.path, job.path.with_suffix(TAGS_SUFFIX), job.path.with_name(f"{job.path.stem}{SUFFIX}")):
            remove_partials(name)
        left = sorted(folder.glob(f"*{SUFFIX}"))
        if job.path.is_file():  # it appeared complete, but nobody noted it
            for file in left:
                file.unlink(missing_ok=True)
            self._done(order.job_id, {})
            return True
        for file in left:
            with suppress(RecordError):  # a damaged one is sampled again
                record = load_unfinished(file)[0].record
                if (record.prompt, record.seed) != (job.prompt, job.seed):
                    continue
                remaining = remaining_of(file, job.path, model_set=self._pipe.model_set)
                self._say(Stage(order.job_id, "decode"))
                self._begin(order, "rest")
                result = finish_rest(self._pipe, remaining)
                assert result is not None
                self._done(order.job_id, result.timings)
                file.unlink(missing_ok=True)
                return True
        return False

    def _extend(self, order: Make, folder: Path) -> None:
        """Go on from a video; pieces that an earlier worker has finished are not made again."""
        file = folder / order.asked.file_name
        if file.is_file():
            self._done(order.job_id, {})
            return
        self._say(Stage(order.job_id, "text"))
        self._begin(order, "extension")
        result = self._pipe.extend(**order.asked.extension(folder), on_step=self._on_step(order.job_id))
        assert result is not None
        self._done(order.job_id, result.timings)

    def _on_step(self, job_id: str) -> Callable[[int, int, Tensor], bool]:
        """What is asked after each step: whether to go on."""

        def on_step(step: int, total: int, latents: Tensor) -> bool:
            if job_id in self._cancelled:
                return False
            self._say(Step(job_id, step, total, self._picture(latents) if job_id in self._watched else None))
            if step == total:
                self._say(Stage(job_id, "decode"))
            return True

        return on_step

    def _sample(self, order: Make, request: Request) -> None:
        pipe, job_id = self._pipe, order.job_id
        on_step = self._on_step(job_id)
        self._say(Stage(job_id, "text"))
        self._begin(order, "request")
        if pipe.team.size > 1:  # all ranks run the same request, to its end
            (result,) = pipe.run(request, on_step=on_step)
            self._done(job_id, result.timings)
            return
        steps = len(pipe.parts.schedule.timesteps)
        (job,) = request.jobs
        finish = pipe.begin(
            job, request.shape, request.output,
            watch=lambda index, latents: (on_step(index + 1, steps, latents), None), given=request.given,
        )  # fmt: skip
        self._say(Stage(job_id, "write"))

        def end() -> None:
            with suppress(BrokenError), self._ending(job_id):
                result = finish()
                assert result is not None
                self._done(job_id, result.timings)

        self._finisher.submit(end)

    def _done(self, job_id: str, timings: Any) -> None:
        self._forget(job_id)
        self._say(Done(job_id, dict(timings), memory_in_use()))

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._cancelled.discard(job_id)
            self._watched.discard(job_id)

    @contextmanager
    def _ending(self, job_id: str) -> Iterator[None]:
        """Say what became of a job that the body does not finish."""
        try:
            yield
        except StoppedError:
            self._forget(job_id)
            self._say(Stopped(job_id))
        except Exception as error:  # whatever it is, the other jobs must not be lost with it
            self._forget(job_id)
            if self._together and is_loss(error):  # it is no fault of the job, which comes again
                raise BrokenError from error
            self._say(failure_of(job_id, error))
            if self._together or "CUDA" in f"{error}{error.__cause__}":
                # The other ranks may wait for ever, and a device with an error gives only more of them.
                raise BrokenError from error

    def _picture(self, latents: Tensor) -> bytes | None:
        """The middle frame of `[T, H, W, C]` latents as a JPEG; None where there is no room to decode it meanwhile."""
        vae = self._pipe.vae
        if vae is None or not self._pipe.is_resident:
            return None
        middle = len(latents) // 2
        try:
            (frame,) = vae.whole().frames(latents[middle : middle + 1])
        except (torch.OutOfMemoryError, FloatingPointError):
            return None
        file = io.BytesIO()
        Image.fromarray(frame[0].numpy()).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()


def memory_in_use() -> int:
    """Bytes that this process has allocated on its GPUs, whichever is the current one; 0 without one."""
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    return sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count()))) if started else 0
