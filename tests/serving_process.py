"""A server, and workers that stop at a stage once, for tests that kill them."""

import dataclasses
import os
import threading
import time
from pathlib import Path

from helpers import LONG, SMALL, until

from kandinsky.atomic import write_text
from kandinsky.output.video import VideoWriter
from kandinsky.serving import worker
from kandinsky.serving.log import Log
from kandinsky.serving.messages import Refused
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.options import Options
from kandinsky.serving.processes import LocalWorker
from kandinsky.serving.retention import Limits
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store
from kandinsky.serving.worker import Place

MARK, GO_ON = "stopped", "go-on"
PORT = "port"
"""A file with the number of the port that a server listens at."""


@dataclasses.dataclass(frozen=True)
class Pause:
    """Where a worker stops, the first time that one comes there: `folder` then has a file with its process's number.

    Of a group `rank` is the process that stops. It goes on when there is a file `GO_ON` too.
    """

    stage: str
    folder: str
    rank: int = 0

    @property
    def variables(self) -> dict[str, str]:
        return {"PAUSE": self.stage, "PAUSE_IN": self.folder, "PAUSE_RANK": str(self.rank)}


def when_latents_are_saved():
    """Their file is written by a thread meanwhile."""
    for thread in threading.enumerate():
        if thread.name == "latents file":
            thread.join()


def paused_worker(connection, place, rank):
    """`worker.main` that stops as `Pause` says."""
    os.environ.update(place.variables)
    import torch

    torch.set_num_threads(1)
    stage = os.environ.get("PAUSE") if os.environ.get("PAUSE_RANK") == str(rank) else None
    load = worker.load

    def wait():
        folder = Path(os.environ["PAUSE_IN"])
        try:
            with (folder / MARK).open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return
        until((folder / GO_ON).exists)

    def load_and_patch(place):
        if stage == "loading":
            wait()
        pipe = load(place)
        step, decode, finish = pipe.dit.step, pipe.vae.decode, VideoWriter.finish
        if stage == "sampling":
            pipe.dit.step = lambda *args: (wait() if args[-1] == 2 else None, step(*args))[1]
        elif stage == "decoding":

            def first_chunk(latents, **settings):
                chunks = decode(latents, **settings)
                if rank == 0:
                    yield next(chunks)
                when_latents_are_saved()
                wait()
                yield from chunks

            pipe.vae.decode = first_chunk
        elif stage == "writing":
            VideoWriter.finish = lambda writer: (when_latents_are_saved(), wait(), finish(writer))
        return pipe

    worker.load = load_and_patch
    worker.main(connection, place, rank)


def starts(weights, pause=None, context=None, **settings):
    """How the one worker is started; by default as in earnest, which is quicker than a fork server of its own.

    Args:
        settings: of its `Place`.
    """
    place = Place(weights=str(weights), device="cpu", variables=pause.variables if pause else {}, **settings)

    def start(name, report):
        return LocalWorker(name, report, place=place, context=context, target=paused_worker)

    return {"w": start}


def run_server(data, weights, pause):
    """A server's process; its port stands in `PORT` in `data`."""
    from kandinsky.serving.http import make_app  # which workers do without
    from kandinsky.serving.server import listen, serve

    log = Log((Path(data) / "log.jsonl").open("a"))
    with listen("127.0.0.1", 0) as listener, Store(Path(data) / "data") as store:
        metrics = Metrics()
        scheduler = Scheduler(store, starts(weights, pause), log=log)
        metrics.watch(scheduler)
        write_text(Path(data) / PORT, str(listener.getsockname()[1]))
        app = make_app(scheduler, Options(model_set=SMALL), metrics=metrics, log=log)
        serve(app, scheduler, listener, limits=Limits(), log=log)


def refusing_worker(connection, _place, rank):
    """Of a group the second process cannot load; the first one waits for it."""
    if rank == 1:
        connection.send(Refused("ValueError: no such device", argument=True))
        return
    time.sleep(LONG)
