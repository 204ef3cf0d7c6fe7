"""What processes of `helpers.fork_server` have imported when they begin: its server imports this, and is forked.

Nothing of it is garbage, so that none is looked for meanwhile, and in no process later.
"""

import atexit
import gc
from importlib import import_module

gc.disable()
for name in (
    "kandinsky.factory",
    "kandinsky.training.ladd",
    "diffusers.models.autoencoders.autoencoder_kl_cogvideox",
    "torch._dynamo",
    "transformers.models.t5.tokenization_t5",
):
    import_module(name)
gc.freeze()
gc.enable()
atexit.register(gc.unfreeze)  # in the server: modules in C++ tell of whatever the interpreter leaves at its end
