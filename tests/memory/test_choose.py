"""What is free on a machine, and which modes that makes; no weight is read before it is known that something fits."""

import dataclasses
import logging
import shutil
from types import SimpleNamespace

import psutil
import pytest
import torch
from fakes import PassedOn
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.config import FLASH_512, MODULES
from kandinsky.errors import NothingFits
from kandinsky.memory import choose
from kandinsky.memory.choose import ALL_RESIDENT, available_host, choose_modes, compare_modes, weight_bytes
from kandinsky.memory.planner import LADDER, Plan
from kandinsky.model.precision import EXACT, FAST
from kandinsky.video_shape import VideoShape

GB = 10**9
DIT = TINY / "kandinsky4_distil_512.pt"
PATHS = WeightPaths(DIT, TINY / "text_encoder", TINY / "tokenizer", TINY / "vae", TINY / "scheduler")
ONE_SECOND = dataclasses.replace(FLASH_512, max_seconds=1)
"""Whose usual request is planned in a moment."""
FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


class HeadersOnly(PassedOn):
    """A checkpoint whose weights nobody may read."""

    def tensor(self, name, *_):
        raise AssertionError(f"{name} was read")


def chosen(free, *, devices=None, paths=PATHS, free_host=64 * GB, **settings):
    """The choice for GPUs with so many bytes free."""
    return choose_modes(
        paths,
        HeadersOnly(open_checkpoint(DIT)),
        devices=devices or dict.fromkeys(MODULES, FIRST),
        dtypes=dict.fromkeys(MODULES, torch.bfloat16),
        precision=EXACT,
        model_set=ONE_SECOND,
        text_encoder_int8=False,
        free_on=lambda device: int(free[device] if isinstance(free, dict) else free),
        free_host=free_host,
        **settings,
    )


def test_a_card_too_small_is_told_before_weights_are_read():
    with pytest.raises(NothingFits, match=r"nothing fits in 0\.0 GB.* Not even an image fits"):
        chosen(10**6)


@pytest.fixture
def unplannable(tmp_path):
    """Weights whose headers are there, but not the configuration that a plan is made from."""
    shutil.copytree(TINY / "vae", tmp_path / "vae")
    (tmp_path / "vae" / "config.json").unlink()
    return dataclasses.replace(PATHS, vae=tmp_path / "vae")


def test_a_gpu_with_room_for_everything_is_not_planned_for(unplannable):
    """The tiny weights take a few MB; a plan would take seconds."""
    found = chosen(8.1 * GB, paths=unplannable)
    assert found.modes == ALL_RESIDENT
    assert not found.memory_saving
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        chosen(7.9 * GB, paths=unplannable)


def test_a_cpu_is_not_planned_for(unplannable):
    found = chosen(0, devices=dict.fromkeys(MODULES, torch.device("cpu")), paths=unplannable)
    assert found.modes == ALL_RESIDENT


def test_processes_share_the_memory_of_their_host():
    """Four of them have a quarter each."""
    with pytest.raises(NothingFits, match=r"0\.0 GB of GPU and 100\.0 GB of host memory"):
        chosen(10**6, free_host=100 * GB)
    with pytest.raises(NothingFits, match=r"0\.0 GB of GPU and 25\.0 GB of host memory"):
        chosen(10**6, free_host=100 * GB, processes=4)


def test_each_gpu_is_planned_for_alone():
    """T5 needs little, and the others do not count on its GPU."""
    devices = {"dit": FIRST, "vae": FIRST, "text_embedder": SECOND}
    assert chosen({FIRST: 4 * GB, SECOND: GB // 5}, devices=devices).modes == ALL_RESIDENT
    with pytest.raises(NothingFits, match=r"nothing fits in 0\.2 GB of GPU"):
        chosen({FIRST: GB // 5, SECOND: 4 * GB}, devices=devices)
    with pytest.raises(NothingFits, match=r"nothing fits in 0\.2 GB of GPU"):
        chosen(GB // 5)


@pytest.mark.parametrize("name", ["blocks", "disk"])
def test_what_was_chosen_is_said_and_why(monkeypatch, caplog, name):
    """Aloud where it is slow."""
    found = Plan(name, LADDER[name], False, {"load": GB}, GB, reason="resident needs 23.4 GB to decode")
    monkeypatch.setattr(choose, "plan_or_nearest", lambda *_, **__: found)
    with caplog.at_level(logging.INFO, logger="kandinsky.memory.choose"):
        assert chosen(GB).modes == LADDER[name]
    (record,) = caplog.records
    assert record.message == f"memory on cuda:0: {name}: resident needs 23.4 GB to decode"
    assert record.levelno == (logging.WARNING if name == "disk" else logging.INFO)


def test_modes_are_compared():
    shape = VideoShape.from_request(1, 512, 512)
    best, found = compare_modes(PATHS, shape, FAST, model_set=FLASH_512, free_gpu=6 * GB, free_host=8 * GB)
    assert best.name == "resident"
    assert len(found) == 2 * len(LADDER)
    assert all(plan.peak > 0 for plan in found)


def test_bytes_of_weights_are_counted_from_headers():
    checkpoint = HeadersOnly(open_checkpoint(DIT))
    numbers = sum(torch.Size(shape).numel() for shape in checkpoint.shapes.values())
    assert weight_bytes(PATHS, {"dit": torch.bfloat16}, checkpoint) == 2 * numbers
    assert weight_bytes(PATHS, {"dit": torch.float32}, checkpoint) == 4 * numbers
    all_of_them = weight_bytes(PATHS, dict.fromkeys(MODULES, torch.float32), checkpoint)
    assert all_of_them > weight_bytes(PATHS, dict.fromkeys(("dit", "vae"), torch.float32), checkpoint) > 4 * numbers


def test_a_system_without_proc_is_asked_by_psutil(tmp_path, monkeypatch):
    """Windows: weights must not be pinned that the host has no room for."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9 * GB))
    assert available_host(tmp_path) == 9 * GB


def test_host_memory_is_what_a_container_leaves(tmp_path):
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
