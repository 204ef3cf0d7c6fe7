"""Processes started as a user starts them: torch.distributed.launch on two nodes, `--num-gpus`, and when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import failing_rank
import pytest
from helpers import ROOT, SMALL, fork_server, own_weights
from PIL import Image

from kandinsky.cli.launch import check_launch
from kandinsky.cli.main import main

SCRIPT = str(ROOT / "run_inference_distil.py")


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def variables_of_two() -> list[dict[str, str]]:
    """What a launcher would tell two processes, of which each is on its own."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "LOCAL_RANK": "0"}
    return [{**group, "RANK": str(rank)} for rank in range(2)]


def start(command, **environment):
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Arguments for 96x64 pixels, with weights that allow them."""
    weights = own_weights(tmp_path_factory.mktemp("weights"), SMALL)
    return ["--weights", str(weights), "--device", "cpu", "--width", "96", "--height", "64"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes of which the last one is killed; what they print, and the folder that they make a video in."""
    folder = tmp_path_factory.mktemp("killed")
    said = [tmp_path_factory.mktemp("said") / f"{rank}" for rank in range(2)]
    ranks = [
        fork_server().Process(target=failing_rank.run_forked, args=(failing_rank.kill, folder, file, variables))
        for file, variables in zip(said, variables_of_two(), strict=True)
    ]
    for rank in ranks:
        rank.start()
    return ranks, said, folder


@pytest.mark.usefixtures("killed")  # the first rank notices it while the other tests run
def test_two_nodes_write_one_video(small, tmp_path):
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
        nodes.append(start([*launcher, *address, SCRIPT, *small, *target]))
    outputs = [node.communicate(timeout=200) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert [path.name for path in tmp_path.iterdir()] == ["0.mp4"]
    assert "9 frames of 96x64 at 8 fps, seed 42" in outputs[0][0]
    assert outputs[1][0] == ""


def test_num_gpus_without_a_launcher(small, tmp_path):
    target = tmp_path / "i.png"
    command = [SCRIPT, *small, "--time-length", "0", "--save-path", str(target), "--num-gpus", "2"]
    process = start([*command, "--parallelism", "sequence", "--json"])
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    shown = json.loads(output)
    assert (shown["path"], shown["seed"], shown["num_frames"]) == (str(target), 42, 1)
    assert Image.open(target).size == (96, 64)
    # One bar at most: that of the main rank.
    assert errors.count("sampling, seed 42:   0%") <= 1


def test_wrong_numbers_of_processes(capsys):
    assert main(["generate", "--num-gpus", "0", "--device", "cpu"]) == 2
    assert "num_gpus=0: allowed is 1 and more" in capsys.readouterr().err
    with pytest.raises(ValueError, match="num_gpus=2 with device='cuda:1': allowed are 'cuda' and 'cpu'"):
        check_launch(2, "cuda:1")
    with pytest.raises(ValueError, match="num_gpus=99: this machine has cpu"):
        check_launch(99, "cuda")


def test_all_end_when_one_raises(tmp_path):
    """Without an agent that would end the others."""
    script = str(ROOT / "tests" / "failing_rank.py")
    first, last = [start([script, str(tmp_path)], **variables) for variables in variables_of_two()]
    last.communicate(timeout=150)
    failed = time.monotonic()
    output, errors = first.communicate(timeout=60)
    assert time.monotonic() - failed < 30
    assert last.returncode != 0
    assert first.returncode == 1
    assert "error: rank 1 failed: ArithmeticError: this rank cannot count" in errors
    assert "finished" not in output
    assert not list(tmp_path.iterdir())


def test_all_end_when_one_is_killed(killed):
    ranks, said, folder = killed
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [1, -signal.SIGKILL]
    first, last = said
    assert "error: rank 1 stopped answering" in first.read_text()
    assert "finished" not in first.read_text()
    assert last.read_text() == "killed\n"
    assert first.stat().st_mtime - last.stat().st_mtime < 30
    assert not list(folder.iterdir())
