"""The training loop: when it stops, what it refuses, what it writes, and that two processes are one."""

import json

import pytest
import torch
from helpers import fork_server, free_port
from safetensors.torch import load_file
from training_helpers import run, train_as_rank

from kandinsky.training.settings import AdamSettings, LaddSettings, PretrainSettings


def lines_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_step_is_logged(whole_run):
    kind, checkpoint = whole_run
    lines = lines_of(checkpoint.parent)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    named = {"loss", "norm/student"} if kind is PretrainSettings else {"student", "heads", "penalty", "norm/heads"}
    assert all(named | {"seconds"} <= line.keys() for line in lines)


def test_a_run_out_of_time_is_saved_and_goes_on(data, teacher, tmp_path):
    settings = {"save_every": 0, "steps": 2}
    stopped = run(PretrainSettings, data, teacher, tmp_path, max_seconds=0.0, **settings)
    assert stopped.name == "checkpoint-00000001"
    assert run(PretrainSettings, data, teacher, tmp_path, **settings).name == "checkpoint-00000002"
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2]


@pytest.mark.slow
def test_a_finished_run_stays(data, teacher, tmp_path):
    checkpoint = run(PretrainSettings, data, teacher, tmp_path, steps=1)
    before = checkpoint.stat().st_mtime_ns
    assert run(PretrainSettings, data, teacher, tmp_path, steps=1) == checkpoint
    assert checkpoint.stat().st_mtime_ns == before


def test_another_run_is_not_taken_up(data, teacher, tmp_path):
    run(PretrainSettings, data, teacher, tmp_path, steps=1)
    with pytest.raises(ValueError, match=r"seed=1: .* was made with 0; take another output"):
        run(PretrainSettings, data, teacher, tmp_path, seed=1)
    with pytest.raises(
        ValueError, match=r"initial='.*teacher.safetensors': .* was made with None; take another output"
    ):
        run(PretrainSettings, data, teacher, tmp_path, initial=teacher)


def test_one_process_is_not_sharded(data, teacher, tmp_path):
    with pytest.raises(ValueError, match="fsdp=True: there is one process"):
        run(PretrainSettings, data, teacher, tmp_path, fsdp=True)


def test_what_is_not_finite_is_not_saved(data, teacher, tmp_path):
    huge = AdamSettings(learning_rate=1e30, warmup=0)
    with pytest.raises(RuntimeError, match="not finite"):
        run(PretrainSettings, data, teacher, tmp_path, optimiser=huge, log_every=0, save_every=0, steps=3)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def runs(data, teacher, tmp_path_factory):
    """A folder with the runs of one process, and of two: replicated, sharded, and sharded in bfloat16."""
    folder = tmp_path_factory.mktemp("runs")
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    processes = [
        fork_server().Process(
            target=train_as_rank, args=(data, teacher, folder, group | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    run(LaddSettings, data, teacher, folder / "one", steps=2, batch_size=4)
    for process in processes:
        process.join(200)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["model", "ema"])
def test_two_processes_equal_one(runs, kind, name):
    """Replicated; and sharded, with a checkpoint in between."""
    file = f"checkpoint-00000002/{name}.safetensors"
    one, two = load_file(runs / "one" / file), load_file(runs / kind / file)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_in_bfloat16_are_near(runs):
    one, half = lines_of(runs / "one")[0], lines_of(runs / "half")[0]
    for name in ("heads", "norm/student", "norm/heads"):
        assert abs(half[name] / one[name] - 1) < 0.03, name


@pytest.mark.slow
def test_sharded_weights_are_sampled(runs):
    assert (runs / "half" / "samples" / "step-00000001.mp4").stat().st_size > 0
