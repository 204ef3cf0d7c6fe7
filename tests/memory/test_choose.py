"""What is free on a machine, and that nothing is read before it is known that something fits."""

import pytest
import torch
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.config import FLASH_512, MODULES
from kandinsky.errors import NothingFits
from kandinsky.memory import choose
from kandinsky.memory.choose import ALL_RESIDENT, available_host, choose_modes, compare_modes, weight_bytes
from kandinsky.memory.planner import LADDER
from kandinsky.model.precision import EXACT, FAST
from kandinsky.video_shape import VideoShape

GB = 10**9
DIT = TINY / "kandinsky4_distil_512.pt"
PATHS = WeightPaths(DIT, TINY / "text_encoder", TINY / "tokenizer", TINY / "vae", TINY / "scheduler")


@pytest.fixture
def chosen(monkeypatch):
    """The choice for a GPU with so many bytes free; a weight that is read fails the test."""
    checkpoint = open_checkpoint(DIT)

    def never(*_arguments, **_settings):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(type(checkpoint), "tensor", never)

    def choice(nbytes, **settings):
        monkeypatch.setattr(choose, "free_gpu", lambda _device: int(nbytes))
        return choose_modes(
            PATHS,
            checkpoint,
            devices=dict.fromkeys(MODULES, torch.device("cuda", 0)),
            dtypes=dict.fromkeys(MODULES, torch.bfloat16),
            precision=EXACT,
            model_set=FLASH_512,
            text_encoder_int8=False,
            **settings,
        )

    return choice


def test_a_card_too_small_is_told_before_weights_are_read(chosen):
    with pytest.raises(NothingFits, match=r"nothing fits in 0\.0 GB.* Not even an image fits"):
        chosen(10**6)


@pytest.mark.parametrize("gigabytes", [8.1, 7.9])
def test_a_gpu_with_room_for_everything_is_not_planned_for(chosen, monkeypatch, gigabytes):
    """The tiny weights take a few MB."""
    planned, plan = [], choose.plan_or_nearest
    monkeypatch.setattr(choose, "plan_or_nearest", lambda *at, **how: planned.append(1) or plan(*at, **how))
    found = chosen(gigabytes * GB)
    assert found.modes == ALL_RESIDENT
    assert bool(planned) == (gigabytes < 8)


def test_processes_share_the_memory_of_their_host(chosen, monkeypatch):
    """Four of them have a quarter each."""
    free = []
    monkeypatch.setattr(choose, "available_host", lambda: 100 * GB)
    plan = choose.plan_or_nearest
    monkeypatch.setattr(choose, "plan_or_nearest", lambda *at, **how: free.append(how["free_host"]) or plan(*at, **how))
    chosen(7 * GB)
    chosen(7 * GB, processes=4)
    assert free == [100 * GB, 25 * GB]


def test_modes_are_compared():
    shape = VideoShape.from_request(1, 512, 512)
    best, found = compare_modes(PATHS, shape, FAST, model_set=FLASH_512, free_gpu=6 * GB, free_host=8 * GB)
    assert best.name == "resident"
    assert len(found) == 2 * len(LADDER)
    assert all(plan.peak > 0 for plan in found)


def test_bytes_of_weights_are_counted_from_headers():
    checkpoint = open_checkpoint(DIT)
    numbers = sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values())
    assert weight_bytes(PATHS, {"dit": torch.bfloat16}, checkpoint) == 2 * numbers
    assert weight_bytes(PATHS, {"dit": torch.float32}, checkpoint) == 4 * numbers


def test_host_memory_is_what_a_container_leaves(tmp_path):
    assert available_host(tmp_path) == 2**62
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    700 kB\nHugePages_Total: 0\n")
    assert available_host(tmp_path) == 700 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert available_host(tmp_path) == 700 * 1024
    (group / "memory.max").write_text("500000\n")
    (group / "memory.current").write_text("300000\n")
    (group / "memory.stat").write_text("anon 200000\ninactive_file 90000\n")
    assert available_host(tmp_path) == 290_000
