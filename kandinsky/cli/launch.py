"""Several processes from one command, without torchrun: its own agent, in this process."""

import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch

from kandinsky.errors import LaunchError
from kandinsky.loading.devices import available


def check_launch(num_gpus: int, device: str) -> None:
    """Refuse a number of processes that this machine has no devices for.

    Raises:
        ValueError: names what is allowed.
    """
    if num_gpus < 1:
        raise ValueError(f"num_gpus={num_gpus}: allowed is 1 and more")
    if num_gpus == 1 or device == "cpu":
        return
    if device != "cuda":
        raise ValueError(f"num_gpus={num_gpus} with device={device!r}: allowed are 'cuda' and 'cpu'")
    if num_gpus > torch.cuda.device_count():
        raise ValueError(f"num_gpus={num_gpus}: this machine has {available()}")


def launch(arguments: Sequence[str], num_gpus: int, *, command: str = "generate") -> None:
    """Run a command of `kandinsky` with `arguments` in `num_gpus` processes.

    Raises:
        LaunchError: one of them failed; the others were ended.
        KeyboardInterrupt: Ctrl-C, which reached them too.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // num_gpus, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_gpus,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "kandinsky", command, *arguments)
    except SignalException as error:
        if error.sigval != signal.SIGINT:
            raise
        raise KeyboardInterrupt from error
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise LaunchError(f"process {rank} of {num_gpus} ended with exit code {failure.exitcode}") from error
