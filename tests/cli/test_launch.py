"""Several processes: `--num-gpus`, torch.distributed.launch on two nodes, and that all end when one does."""

import json
import os
import signal
import subprocess
import sys

import launch_processes
import pytest
from helpers import ROOT, fork_server, free_port
from PIL import Image

from kandinsky.cli.launch import check_launch

PATIENCE = 240
"""Seconds after which a process is given up that does not end."""


def start(target, *arguments):
    process = fork_server().Process(target=target, args=arguments)
    process.start()
    return process


def codes_of(processes):
    """Exit codes; a process that does not end is killed."""
    for process in processes:
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            pytest.fail("a process waits for ever")
    return [process.exitcode for process in processes]


def start_two(tmp_path_factory, fail):
    """Two ranks without an agent that would end them, of which the last one fails; what they say, and their folder."""
    folder = tmp_path_factory.mktemp("videos")
    said = [tmp_path_factory.mktemp("said") / f"{rank}" for rank in range(2)]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "LOCAL_RANK": "0"}
    ranks = [
        start(launch_processes.run_rank, fail, folder, file, {**group, "RANK": str(rank)})
        for rank, file in enumerate(said)
    ]
    return ranks, said, folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The last one is killed; the first one notices it while other tests run."""
    return start_two(tmp_path_factory, launch_processes.kill)


@pytest.fixture(scope="module")
def raised(tmp_path_factory):
    """The last one raises an exception."""
    return start_two(tmp_path_factory, launch_processes.stumble)


@pytest.fixture
def small(small_weights):
    """Arguments for 96x64 pixels, with weights that allow them."""
    return ["--weights", str(small_weights), "--device", "cpu", "--width", "96", "--height", "64"]


@pytest.mark.slow
def test_all_end_when_one_raises(raised):
    ranks, said, folder = raised
    assert codes_of(ranks) == [1, 1]
    first, last = (file.read_text() for file in said)
    assert "error: rank 1 failed: ArithmeticError: this rank cannot count" in first
    assert "ArithmeticError: this rank cannot count" in last
    assert "finished" not in first + last
    assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("killed")
def test_num_gpus_without_a_launcher(small, tmp_path):
    target = tmp_path / "i.png"
    asked = ["--time-length", "0", "--save-path", str(target), "--num-gpus", "2", "--parallelism", "sequence", "--json"]
    process = start(launch_processes.run_command, [*small, *asked], tmp_path / "said")
    assert codes_of([process]) == [0], (tmp_path / "said.err").read_text()
    (line,) = (tmp_path / "said").read_text().splitlines()  # of the main rank alone
    shown = json.loads(line)
    assert (shown["path"], shown["seed"], shown["num_frames"]) == (str(target), 42, 1)
    assert Image.open(target).size == (96, 64)
    # One bar at most: that of the main rank.
    assert (tmp_path / "said.err").read_text().count("sampling, seed 42:   0%") <= 1


@pytest.mark.slow
def test_all_end_when_one_is_killed(killed):
    """It takes as long as a silence that is no more than a busy machine; tests of the watchdog do not wait so long."""
    ranks, said, folder = killed
    assert codes_of(ranks) == [1, -signal.SIGKILL]
    first, last = (file.read_text() for file in said)
    assert "error: rank 1 stopped answering" in first
    assert "finished" not in first
    assert last == "killed\n"
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("number", "device", "message"),
    [
        (0, "cpu", "num_gpus=0: allowed is 1 and more"),
        (2, "cuda:1", "num_gpus=2 with device='cuda:1': allowed are 'cuda' and 'cpu'"),
        (99, "cuda", "num_gpus=99: this machine has cpu"),
    ],
)
def test_wrong_numbers_of_processes(number, device, message):
    with pytest.raises(ValueError, match=message):
        check_launch(number, device)


@pytest.mark.parametrize(("number", "device"), [(1, "cuda:99"), (1, "cpu"), (99, "cpu")])
def test_right_numbers_of_processes(number, device):
    """One process is not asked about its device here, and a CPU has room for any."""
    assert check_launch(number, device) is None


@pytest.mark.slow
def test_a_failure_is_told_once(small, tmp_path):
    """Each process says why on stderr; whoever started them ends with it, and prints the only line of JSON."""
    weights = tmp_path / "w"
    weights.mkdir()
    asked = [*small, "--weights", str(weights), "--time-length", "0", "--save-path", str(tmp_path / "i.png"), "--json"]
    (weights / "kandinsky4_distil_512.pt").write_bytes(b"damaged")
    process = start(launch_processes.run_command, [*asked, "--width", "512", "--height", "512", "--num-gpus", "2"],
                    tmp_path / "said")  # fmt: skip
    assert codes_of([process]) == [1]
    (line,) = (tmp_path / "said").read_text().splitlines()
    shown = json.loads(line)
    assert shown["status"] == "failed"
    assert "of 2 ended with exit code 1" in shown["error"]
    assert "error: weights are missing" in (tmp_path / "said.err").read_text()


@pytest.mark.slow
def test_two_nodes_write_one_video(small, tmp_path):
    """Two agents on loopback; only global rank 0 writes, though both are local rank 0."""
    port, nodes = str(free_port()), []
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
        command = [sys.executable, *launcher, *address, str(ROOT / "run_inference_distil.py"), *small, *target]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        nodes.append(subprocess.Popen(command, env=environment, **pipes))
    outputs = [node.communicate(timeout=PATIENCE) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert [path.name for path in tmp_path.iterdir()] == ["0.mp4"]
    assert "9 frames of 96x64 at 8 fps, seed 42" in outputs[0][0]
    assert outputs[1][0] == ""
