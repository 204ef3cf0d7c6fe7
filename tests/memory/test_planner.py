"""The choice of memory modes, and what is said when none fits."""

import time

import pytest
import torch
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.cli.main import main
from kandinsky.config import FLASH_512, MODULES
from kandinsky.errors import NothingFits
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading import places
from kandinsky.memory.footprint import Component
from kandinsky.memory.planner import LADDER, MARGIN, Needs, outcome, plan, plan_or_nearest
from kandinsky.video_shape import VideoShape

GB = 10**9
PLENTY = {"free_gpu": 100 * GB, "free_host": 100 * GB}
DIT = TINY / "kandinsky4_distil_512.pt"
SHAPE = VideoShape.from_request(12, 672, 384)


def needs(scale=1.0, dit_blocks=10):
    """Round numbers: T5 8 GB in 8 blocks, a DiT of blocks of 1 GB, a VAE of 1 GB; working memory grows with `scale`."""
    return Needs(
        {
            "text_embedder": Component((GB,) * 8, 0, GB // 10),
            "dit": Component((GB,) * dit_blocks, GB // 10, int(2 * GB * scale)),
            "vae": Component((GB,), 0, int(5 * GB * scale)),
        },
        Component((GB,), 0, int(2 * GB * scale)),
    )


def chosen(gpu, host=64.0, **changes):
    return plan(needs(**changes), free_gpu=int(gpu * GB / (1 - MARGIN)) + 1, free_host=int(host * GB))


def test_peaks_of_a_mode():
    found = outcome(needs(), LADDER["staged, T5 in blocks"], memory_saving=False)
    peaks = {"load": 3.2, "text": 3.2, "sample": 12.1, "decode": 6.1}
    assert found.peaks == {stage: int(peak * GB) for stage, peak in peaks.items()}
    assert found.peak == found.peaks["sample"]
    assert found.host == 19 * GB
    resident = outcome(needs(), LADDER["resident"], memory_saving=False)
    assert resident.peaks["decode"] == int(24.1 * GB)
    assert resident.host == 0


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (24.1, "resident"),
        (24.0, "resident, T5 in blocks"),
        (16.1, "resident, T5 in blocks"),
        (16.0, "staged, T5 in blocks"),
        (12.0, "blocks"),
        (6.0, "blocks, saving decode"),
    ],
)
def test_the_fastest_that_fits_is_taken(gpu, name):
    found = chosen(gpu)
    assert found.name == name
    assert found.memory_saving == name.endswith("saving decode")


def test_the_reason_names_what_was_refused():
    assert chosen(17).reason.startswith("resident needs 24.1 GB to decode; this needs 16.1 GB of 18.9 GB")


def test_host_memory_counts():
    assert chosen(17, host=2 + 8).name == "resident, T5 in blocks"
    with pytest.raises(NothingFits, match=r"needs 21\.0 GB of host memory"):
        chosen(17, host=5)


def test_nothing_fits_names_the_nearest_that_would():
    def needs_of(shape, precision):
        return needs(scale=shape.seconds / 12 * (0.9 if precision == "fast" else 1) + 0.01)

    def message(gpu, precision):
        with pytest.raises(NothingFits) as caught:
            plan_or_nearest(needs_of, SHAPE, precision, free_gpu=int(gpu * GB), free_host=64 * GB)
        return str(caught.value)

    assert "What would fit: 672x384, time_length=12, precision='fast'" in message(5.6, "exact")
    assert "What would fit: 672x384, time_length=6, precision='exact'" in message(4.8, "exact")
    assert "What would fit: 672x384, time_length=6, precision='fast'" in message(4.8, "fast")
    assert "Not even an image fits" in message(1, "exact")


def test_loading_counts():
    """Weights that are quantised on the GPU are there as they were before."""
    dit = Component((GB,) * 5, 0, GB, loading=5 * GB)
    for gpu, mode in ((12, "resident"), (8, "staged")):
        found = plan(Needs({"dit": dit}), free_gpu=gpu * GB, free_host=64 * GB)
        assert found.modes == {"dit": mode}
        assert found.peaks["sample"] == 6 * GB


def test_a_subset_of_components():
    found = plan(Needs({"dit": Component((GB,) * 10, 0, GB)}), free_gpu=6 * GB, free_host=64 * GB)
    assert found.modes == {"dit": "blocks"}
    assert list(found.peaks) == ["load", "sample"]


def test_command(capsys):
    start = time.perf_counter()
    arguments = ["--weights", str(TINY), "--host-memory", "8", "--time-length", "1"]
    assert main(["plan", "--gpu-memory", "6", *arguments]) == 0
    assert time.perf_counter() - start < 5
    output = capsys.readouterr().out
    assert "chosen: resident: this needs" in output
    assert len(output.splitlines()) == 2 + 2 * len(LADDER) + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu-memory", "0.01"], "nothing fits in 0.0 GB of GPU"),
        ([], "--gpu-memory is needed on a machine without a CUDA device"),
        (["--gpu-memory", "6", "--time-length", "99"], "time_length=99"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_command_refuses(arguments, message, capsys):
    assert main(["plan", "--weights", str(TINY), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_card_too_small_is_told_before_weights_are_read(monkeypatch):
    """As on a machine with a GPU of 1 MB."""
    monkeypatch.setattr(places, "free_gpu", lambda _device: 10**6)
    monkeypatch.setattr(
        "kandinsky.factory.check_device_map", lambda _map: dict.fromkeys(NAMES, torch.device("cuda", 0))
    )
    monkeypatch.setattr("kandinsky.factory.choose_operations", lambda *_arguments, **_settings: None)
    monkeypatch.setattr("kandinsky.checkpoint.files.SafetensorsFiles.tensor", never)
    monkeypatch.setattr("kandinsky.checkpoint.files.TorchFile.tensor", never)
    with pytest.raises(NothingFits, match=r"nothing fits in 0\.0 GB.* Not even an image fits"):
        get_T2V_pipeline("cuda", cache_dir=TINY)


NAMES = ("dit", "vae", "text_embedder")


def never(*_arguments, **_settings):
    raise AssertionError("a weight was read")


@pytest.mark.parametrize("gigabytes", [8.1, 7.9])
def test_a_gpu_with_room_for_everything_is_not_planned_for(gigabytes, monkeypatch):
    """The tiny weights take a few MB."""
    planned = []
    monkeypatch.setattr(places, "free_gpu", lambda _: int(gigabytes * GB))
    monkeypatch.setattr(places, "plan_or_nearest", lambda *_, **__: planned.append(1) or plan(needs(), **PLENTY))
    devices = dict.fromkeys(MODULES, torch.device("cuda", 0))
    unplanned = places.Places(devices, None, False, None, False, False)
    paths = WeightPaths(DIT, TINY / "text_encoder", TINY / "tokenizer", TINY / "vae", TINY / "scheduler")
    found = unplanned.chosen(paths, open_checkpoint(DIT), "exact", model_set=FLASH_512, alone=True)
    assert set(found.modes.values()) == {"resident"}
    assert bool(planned) == (gigabytes < 8)


def test_host_memory_is_what_a_container_leaves(tmp_path):
    assert places.available_host(tmp_path) == 2**62
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    700 kB\nHugePages_Total: 0\n")
    assert places.available_host(tmp_path) == 700 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert places.available_host(tmp_path) == 700 * 1024
    (group / "memory.max").write_text("500000\n")
    (group / "memory.current").write_text("300000\n")
    (group / "memory.stat").write_text("anon 200000\ninactive_file 90000\n")
    assert places.available_host(tmp_path) == 290_000
