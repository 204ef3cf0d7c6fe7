"""Processes started as a user starts them: torch.distributed.launch on two nodes, `--num-gpus`, and when one dies."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY
from PIL import Image

from kandinsky.cli import main
from kandinsky.factory import get_T2V_pipeline
from kandinsky.launch import check_launch
from kandinsky.ranks import Ranks

SCRIPT = str(ROOT / "run_inference_distil.py")
ON_CPU = ["--weights", str(TINY), "--device", "cpu", "--width", "512", "--height", "512"]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def start(command, **environment):
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_two_nodes_write_one_video(tmp_path):
    """Two agents on loopback; only global rank 0 writes, though both are local rank 0."""
    port, nodes = free_port(), []
    for node in range(2):
        launcher = [
            "-m",
            "torch.distributed.launch",
            "--nnodes",
            "2",
            "--nproc-per-node",
            "1",
            "--node-rank",
            str(node),
        ]
        address = ["--master-addr", "127.0.0.1", "--master-port", port]
        target = ["--save-path", str(tmp_path / f"{node}.mp4"), "--time-length", "1", "--no-progress"]
        nodes.append(start([*launcher, *address, SCRIPT, *ON_CPU, *target]))
    outputs = [node.communicate(timeout=200) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert [path.name for path in tmp_path.iterdir()] == ["0.mp4"]
    assert "9 frames of 512x512 at 8 fps, seed 42" in outputs[0][0]
    assert outputs[1][0] == ""


def test_num_gpus_without_a_launcher(tmp_path):
    target = tmp_path / "i.png"
    command = [SCRIPT, *ON_CPU, "--time-length", "0", "--save-path", str(target), "--num-gpus", "2"]
    process = start([*command, "--parallelism", "sequence", "--json"])
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    shown = json.loads(output)
    assert (shown["path"], shown["seed"], shown["num_frames"]) == (str(target), 42, 1)
    assert Image.open(target).size == (512, 512)
    # One bar at most: that of the main rank.
    assert errors.count("sampling, seed 42:   0%") <= 1


def test_wrong_numbers_of_processes(capsys):
    assert main(["generate", "--num-gpus", "0", *ON_CPU]) == 2
    assert "num_gpus=0: allowed is 1 and more" in capsys.readouterr().err
    with pytest.raises(ValueError, match="num_gpus=2 with device='cuda:1': allowed are 'cuda' and 'cpu'"):
        check_launch(2, "cuda:1")
    with pytest.raises(ValueError, match="num_gpus=99: this machine has cpu"):
        check_launch(99, "cuda")


def test_heads_that_cannot_be_shared(monkeypatch):
    """Before any weight is read."""
    monkeypatch.setattr("kandinsky.assembly.open_group", lambda _device: Ranks(0, 3))
    monkeypatch.setattr("kandinsky.checkpoint.load_weights", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ValueError, match="3 processes cannot share 2 heads; allowed: 1, 2"):
        get_T2V_pipeline("cpu", cache_dir=TINY, progress=False)


FAILURES = {"kill": "rank 1 stopped answering", "raise": "rank 1 failed: ArithmeticError: this rank cannot count"}


def test_all_end_when_one_fails(tmp_path):
    """Killed or by an exception, without an agent that would end the others: each process is on its own."""
    script, groups = str(ROOT / "tests" / "failing_rank.py"), {}
    for how in FAILURES:
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "LOCAL_RANK": "0"}
        groups[how] = [start([script, how, str(tmp_path)], RANK=str(rank), **group) for rank in range(2)]
    for how, (first, last) in groups.items():
        last.communicate(timeout=150)
        failed = time.monotonic()
        output, errors = first.communicate(timeout=60)
        assert time.monotonic() - failed < 30
        assert last.returncode != 0
        assert first.returncode == 1
        assert f"error: {FAILURES[how]}" in errors
        assert "finished" not in output
    assert not list(tmp_path.iterdir())
