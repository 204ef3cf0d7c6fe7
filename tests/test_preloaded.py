"""What processes of the fork server have imported when they begin."""

import multiprocessing
import os

import preloaded
from helpers import LONG, fork_server


def test_the_server_has_imported_what_its_processes_need():
    """It would go on without: each process would then import all of it."""
    ours, theirs = multiprocessing.Pipe()
    process = fork_server().Process(target=preloaded.is_preloaded, args=(theirs,))
    process.start()
    assert ours.poll(LONG)
    assert ours.recv() == (True, os.environ.get("PYTHONPATH"))
    process.join()
