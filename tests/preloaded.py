"""What processes of `helpers.fork_server` have imported when they begin: its server imports this, and is forked.

Nothing of it is garbage, so that none is looked for meanwhile, and in no process later.
"""

import atexit
import contextlib
import gc
import os
from importlib import import_module
from multiprocessing.connection import Connection

SERVER = os.getpid()

# Processes that others start find their modules without our folder (see `helpers.fork_server`).
_, *paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if paths:
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
else:
    os.environ.pop("PYTHONPATH", None)

gc.disable()
for name in (
    "helpers",
    "kandinsky.factory",
    "kandinsky.training.ladd",
    "diffusers.models.autoencoders.autoencoder_kl_cogvideox",
    "torch._dynamo",
    "transformers.models.t5.tokenization_t5",
):
    import_module(name)
with contextlib.suppress(ImportError):  # an extra
    import_module("kandinsky.serving.http")
    import_module("kandinsky.serving.server")
gc.freeze()
gc.enable()
atexit.register(gc.unfreeze)  # in the server: modules in C++ tell of whatever the interpreter leaves at its end


def is_preloaded(connection: Connection) -> None:
    """Say whether the server that forked this process had this module, and what is left of `PYTHONPATH`."""
    connection.send((os.getppid() == SERVER, os.environ.get("PYTHONPATH")))
