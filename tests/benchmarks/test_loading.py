"""Ways of loading tiny weights."""

import pytest
import torch
from benchmark_helpers import all_positive

from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.video_shape import VideoShape

CPU = torch.device("cpu")


def test_step_by_step_tells_where_the_seconds_go(run):
    found = run("loading")
    phases = found["phases"]
    named = ("plan (auto)", "T5", "DiT", "VAE", "fingerprints", "DiT to its home", "modulation table")
    assert set(phases) > {*named, "attention chosen", "modulation off the GPU", "tokenizer"}
    assert all_positive(phases, found["limit_s"], found["host_gb"])
    assert sum(phases.values()) == pytest.approx(found["load_s"], rel=0.1)


def test_loaded_step_by_step_it_is_what_loading_gives(script, small_weights, pipe):
    parts, _ = script("loading").load_in_steps(small_weights, CPU)
    stepwise = Kandinsky4T2VPipeline(parts)
    text, shape = pipe.encode("a lighthouse"), VideoShape.from_request(0, 96, 64, model_set=pipe.model_set)
    assert torch.equal(stepwise.encode("a lighthouse"), text)
    assert torch.equal(stepwise.sample(text, shape, seed=1), pipe.sample(text, shape, seed=1))
    assert stepwise.dit.operations == pipe.dit.operations
    assert stepwise.dit.attention == pipe.dit.attention


@pytest.mark.parametrize("name", ["reading alone", "ours, .pt", "torch.load + from_pretrained"])
def test_each_way_has_a_line(script, small_weights, name):
    loading = script("loading")
    assert name in loading.loads_on(CPU)
    report = loading.measure_load(small_weights, CPU, name)
    assert all_positive(report["load_s"])
    assert name in loading.load_line(name, report)
    assert loading.load_line(name, {"failed": "exit code 1"}).endswith("{'failed': 'exit code 1'}")


def test_full_size_needs_a_folder(script, capsys):
    with pytest.raises(SystemExit):
        script("loading").main(["--device", "cpu"])
    assert "FOLDER: needed" in capsys.readouterr().err
