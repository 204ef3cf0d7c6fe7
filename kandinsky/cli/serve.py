"""`kandinsky serve`: jobs on disk, workers on GPUs, HTTP in front; `docs/serving.md` is its contract. `kandinsky web`
is the same, and opens the page in a browser. Needs the extra `serve`.
"""

import argparse
import importlib
import ipaddress
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kandinsky.cli.common import (
    PRECISION,
    Defaults,
    Outcome,
    add_backend_arguments,
    add_no_distributed,
    file_argument,
    heed_no_distributed,
)
from kandinsky.cli.loras import add_lora_argument, loras_of
from kandinsky.config import FLASH_512, MEMORY_MODES, PARALLELISMS, PRECISIONS
from kandinsky.errors import KandinskyError

if TYPE_CHECKING:
    from kandinsky.serving.options import Options
    from kandinsky.serving.processes import Start
    from kandinsky.serving.ray import Cluster
    from kandinsky.serving.worker import Place

MEGA, GIGA = 2**20, 2**30
LARGEST = 1_000_000
"""Days, MB or GB that a limit may have: beyond it dates cannot be written."""


def add_serve_commands(commands: Any) -> None:
    """Add the subcommands to argparse's `commands`."""
    about = "Serve the videos protocol and a page: jobs are kept on disk, and made by workers."
    server = commands.add_parser("serve", help="serve jobs over HTTP", description=about)
    page = commands.add_parser("web", help="open a page in the browser", description="The same as `serve --open`.")
    for parser in (server, page):
        parser.formatter_class = Defaults
        _add_arguments(parser)
        _add_limits(parser)
        parser.set_defaults(run=serve)
    server.add_argument("--open", action="store_true", help="open the page in a browser")
    page.set_defaults(open=True)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=file_argument, default="./kandinsky-data/", help="folder for jobs and videos")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--weights", type=file_argument, default="./weights/", help="folder of the weights")
    parser.add_argument("--device", default="cuda", help="where workers run: cuda, cuda:1, cpu, mps")
    parser.add_argument("--precision", default="exact", choices=PRECISIONS, help=PRECISION)
    parser.add_argument(
        "--memory",
        default="auto",
        choices=("auto", *MEMORY_MODES),
        help="where weights are while they are not used; auto: the fastest that fits",
    )
    parser.add_argument(
        "--workers", type=int, help="each on a GPU of its own, or a group of GPUs; default: 1, with --ray all"
    )
    parser.add_argument("--gpus-per-worker", type=int, default=1, help="GPUs that make each video together")
    parser.add_argument(
        "--parallelism", default="sequence", choices=PARALLELISMS[:2], help="how they do that; see `generate`"
    )
    add_backend_arguments(parser)
    add_no_distributed(parser)
    add_lora_argument(parser)
    parser.add_argument("--ray", metavar="ADDRESS", help="workers on every node of a Ray cluster: auto, or HOST:PORT")
    parser.add_argument("--keys", type=file_argument, help="file of API keys; without it this machine's users may")
    parser.add_argument("--add-key", metavar="NAME", help="add a key to the file, print it, and end")
    parser.add_argument("--insecure", action="store_true", help="listen on a public address without keys")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="name in the Host header that is let in"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-queue", type=int, default=1000, help="jobs that may wait")
    parser.add_argument("--max-jobs-per-key", type=int, default=100, help="jobs of one key that may wait or run")
    parser.add_argument("--max-prompt", type=int, default=4000, help="characters of a prompt")
    parser.add_argument("--max-body", type=float, default=16, metavar="MB", help="size of a request")
    parser.add_argument("--max-seconds", type=int, help="of a video; default: what the weights allow")
    parser.add_argument("--keep", type=float, default=7, metavar="DAYS", help="for which finished jobs are kept")
    parser.add_argument("--disk", type=float, metavar="GB", help="of finished videos, beyond which the oldest go")
    parser.add_argument("--log-prompts", action="store_true", help="prompts may stand in the log")


def serve(parsed: argparse.Namespace) -> Outcome:
    """Serve until a signal.

    Raises:
        ValueError: an argument is not what it may be, or a package is missing; nothing was loaded.
        KandinskyError: no worker can load the weights.
    """
    if parsed.add_key is not None:
        return _add_key(parsed)
    heed_no_distributed(parsed)
    import_server()
    from kandinsky.serving.http import make_app
    from kandinsky.serving.log import Log
    from kandinsky.serving.metrics import Metrics
    from kandinsky.serving.retention import Limits
    from kandinsky.serving.scheduler import Scheduler
    from kandinsky.serving.server import listen
    from kandinsky.serving.server import serve as serve_jobs
    from kandinsky.serving.store import Store

    _check_numbers(parsed)
    if parsed.retune:
        from kandinsky.loading.remembered import forget

        forget()
    options = _options(parsed)
    place = _place(parsed)
    cluster = None if parsed.ray is None else open_cluster(parsed.ray, place, most=parsed.workers)
    starts = _starts(parsed, place) if cluster is None else cluster.starts(0, cluster.room())
    listener = listen(parsed.host, parsed.port)
    limits = Limits(parsed.keep, None if parsed.disk is None else int(parsed.disk * GIGA))
    log, metrics = Log(), Metrics()
    with listener, Store(Path(parsed.data)) as store:
        scheduler = Scheduler(store, starts, log=log, seconds=metrics.seconds)
        metrics.watch(scheduler)
        app = make_app(scheduler, options, metrics=metrics, log=log)
        if cluster is not None:
            cluster.grow_scheduler(scheduler)
        _say_where(parsed, listener)
        serve_jobs(app, scheduler, listener, limits=limits, log=log)
    if cluster is not None:
        cluster.close()
    if scheduler.refused is not None:
        said = f"the weights cannot be loaded: {scheduler.refused.reason}"
        raise ValueError(said) if scheduler.refused.argument else KandinskyError(said)
    return Outcome([], {})


def import_server() -> None:
    """Import what the server needs.

    Raises:
        ValueError: it is not installed, and the message has the command that does; or it does not import.
    """
    for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        import_extra(name, "serve")


def import_extra(name: str, extra: str) -> None:
    """Import a package of an extra.

    Raises:
        ValueError: as `import_server`.
    """
    try:
        importlib.import_module(name)
    except ImportError as error:
        install = f"pip install 'kandinsky4[{extra}]'"
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise ValueError(f"this needs {name}, which is not installed: {install}") from error
        raise ValueError(f"this needs {name}, which is installed but does not import: {error}") from error


def open_cluster(address: str, place: "Place", *, most: int | None = None) -> "Cluster":
    """A connection to a Ray cluster.

    Raises:
        ValueError: there is none, or the package is missing.
    """
    import_extra("ray", "ray")
    from kandinsky.serving.ray import Cluster

    return Cluster(address, place, most=most)


def _options(parsed: argparse.Namespace) -> "Options":
    from kandinsky.checkpoint.model_set import read_model_set
    from kandinsky.serving.keys import Keys, read_keys
    from kandinsky.serving.options import Options

    keys = Keys() if parsed.keys is None else read_keys(Path(parsed.keys))
    if keys.digests is None and not parsed.insecure and not is_loopback(parsed.host):
        raise ValueError(
            f"host={parsed.host!r} lets others in: give a file of keys (--keys FILE; --add-key NAME makes one), or say "
            "--insecure"
        )
    return Options(
        model_set=read_model_set(Path(parsed.weights)) or FLASH_512,
        precision=parsed.precision,
        keys=keys,
        hosts=frozenset(name.lower() for name in (*parsed.allow_host, parsed.host, socket.gethostname())),
        max_queue=parsed.max_queue,
        max_jobs_of_key=parsed.max_jobs_per_key,
        max_prompt=parsed.max_prompt,
        max_body=int(parsed.max_body * MEGA),
        max_seconds=parsed.max_seconds,
        keep_days=parsed.keep,
        log_prompts=parsed.log_prompts,
        loras={Path(file).stem: weight for file, weight in loras_of(parsed).items()},
    )


def _place(parsed: argparse.Namespace) -> "Place":
    from kandinsky.serving.worker import Place

    return Place(
        weights=str(Path(parsed.weights).absolute()),  # other processes, on other machines, work elsewhere
        device=parsed.device,
        precision=parsed.precision,
        memory=parsed.memory,
        parallelism=parsed.parallelism,
        attention=parsed.attention,
        kernels=parsed.kernels,
        processes=parsed.gpus_per_worker,
        loras={str(Path(file).absolute()): weight for file, weight in loras_of(parsed).items()},
    )


def _starts(parsed: argparse.Namespace, place: "Place") -> dict[str, "Start"]:
    from kandinsky.serving.processes import LocalWorker, places

    def start_at(one: "Place") -> "Start":
        return lambda name, report: LocalWorker(name, report, place=one)

    return {f"worker-{index}": start_at(one) for index, one in enumerate(places(place, parsed.workers or 1))}


def _check_numbers(parsed: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        ValueError: names the argument.
    """
    names = ("workers", "gpus_per_worker", "max_queue", "max_jobs_per_key", "max_prompt", "max_seconds")
    for name in names:
        value = getattr(parsed, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: allowed is 1 and more")
    for name in ("max_body", "keep", "disk"):
        value = getattr(parsed, name)
        if value is not None and not 0 < value <= LARGEST:
            raise ValueError(f"{name}={value}: allowed is more than 0, up to {LARGEST:,}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Raises:
        ValueError: there is no such address.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"host={host!r}: {error}") from error
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _say_where(parsed: argparse.Namespace, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    name = parsed.host if parsed.host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    url = f"http://{f'[{name}]' if ':' in name else name}:{port}"
    print(f"open {url} in a browser; Ctrl-C ends when the running job is done, a second one at once", file=sys.stderr)
    if parsed.open:
        webbrowser.open(url)


def _add_key(parsed: argparse.Namespace) -> Outcome:
    from kandinsky.serving.keys import add_key

    if parsed.keys is None:
        raise ValueError("--add-key needs --keys, the file to add it to")
    key = add_key(Path(parsed.keys), parsed.add_key)
    return Outcome([key], {})
