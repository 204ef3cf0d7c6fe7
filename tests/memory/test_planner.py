"""The choice of memory modes, and what is said when none fits."""

import dataclasses

import pytest

from kandinsky.config import FLASH_512
from kandinsky.errors import NothingFits
from kandinsky.memory.choose import available_host
from kandinsky.memory.footprint import Component
from kandinsky.memory.modes import BLOCKS, RESIDENT, STAGED
from kandinsky.memory.planner import HOST_RESERVE, LADDER, MARGIN, Needs, outcome, plan, plan_or_nearest, smaller
from kandinsky.model.precision import EXACT, FAST
from kandinsky.video_shape import VideoShape

GB = 10**9
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
    assert chosen(17, host=2 + 8 - 1).name == "resident, T5 from disk"
    with pytest.raises(NothingFits, match=r"disk, saving decode needs 3\.5 GB of host memory"):
        chosen(12, host=3)


@pytest.mark.parametrize(("host", "name"), [(21, "blocks"), (20.9, "blocks, T5 from disk"), (12, "disk"), (4, "disk")])
def test_a_small_host_reads_from_the_file(host, name):
    """What does not fit beside the rest of the host's memory is not kept there, and the reason says so."""
    found = chosen(12, host=host)
    assert found.name == name
    assert found.host + HOST_RESERVE <= host * GB
    assert ("of host memory" in found.reason) == (name != "blocks")


def test_a_file_that_holds_something_else_is_not_read_from():
    """Float8 weights that are made when the file is loaded, for example."""
    own = needs()
    dit = dataclasses.replace(own.components["dit"], in_file=False)
    changed = Needs({**own.components, "dit": dit}, own.vae_saving)
    with pytest.raises(NothingFits, match=r"needs a file that holds what is computed with \(`kandinsky convert`\)"):
        plan(changed, free_gpu=14 * GB, free_host=10 * GB)


def test_nothing_fits_names_the_nearest_that_would():
    def needs_of(shape, precision):
        return needs(scale=shape.seconds / 12 * (0.9 if precision is FAST else 1) + 0.01)

    def message(gpu, precision):
        with pytest.raises(NothingFits) as caught:
            plan_or_nearest(needs_of, SHAPE, precision, free_gpu=int(gpu * GB), free_host=64 * GB)
        return str(caught.value)

    assert "What would fit: 672x384, time_length=12, precision='fast'" in message(5.6, EXACT)
    assert "What would fit: 672x384, time_length=6, precision='exact'" in message(4.8, EXACT)
    assert "What would fit: 672x384, time_length=6, precision='fast'" in message(4.8, FAST)
    assert "Not even an image fits" in message(1, EXACT)


def test_loading_counts():
    """Weights that are quantised on the GPU are there as they were before."""
    dit = Component((GB,) * 5, 0, GB, loading=5 * GB)
    for gpu, mode in ((12, RESIDENT), (8, STAGED)):
        found = plan(Needs({"dit": dit}), free_gpu=gpu * GB, free_host=64 * GB)
        assert found.modes == {"dit": mode}
        assert found.peaks["sample"] == 6 * GB


def test_a_subset_of_components():
    found = plan(Needs({"dit": Component((GB,) * 10, 0, GB)}), free_gpu=6 * GB, free_host=64 * GB)
    assert found.modes == {"dit": BLOCKS}
    assert list(found.peaks) == ["load", "sample"]


def test_shorter_requests_end_with_an_image():
    found = list(smaller(SHAPE, FLASH_512))
    assert [shape.seconds for shape in found] == [6, 3, 1, 0]
    assert {(shape.width, shape.height) for shape in found} == {(672, 384)}
    assert list(smaller(found[-1], FLASH_512)) == []


def test_a_plan_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        chosen(17).name = "resident"
    with pytest.raises(TypeError):
        LADDER["other"] = LADDER["blocks"]


def published():
    """Bytes of the published weights and of a 12 s request, as docs/benchmarks.md has them."""
    return Needs(
        {
            "text_embedder": Component((386 * 10**6,) * 24, 0, GB // 10),
            "dit": Component((227 * 10**6,) * 42, 80 * 10**6, int(2.1 * GB)),
            "vae": Component((440 * 10**6,), 0, int(4.1 * GB)),
        }
    )


@pytest.mark.parametrize(
    ("gpu", "host", "name"),
    [(7.5, 12, "disk"), (7.5, 14, "blocks, T5 from disk"), (7.5, 30, "blocks"), (23, 8, "resident, T5 from disk")],
)
def test_a_host_of_16_gb_is_enough(gpu, host, name):
    """An 8 GB card in a host of 16 GB, of which 12 to 14 are free."""
    assert plan(published(), free_gpu=int(gpu * GB), free_host=host * GB).name == name


@pytest.mark.parametrize(("used", "name", "host"), [(3, "blocks, T5 from disk", 11), (6, "disk", 2)])
def test_a_container_with_16_gb_reads_from_the_file(tmp_path, used, name, host):
    """Its limit counts, whatever its host has; what it uses besides is `used` GB."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {256 * 10**6} kB\n")
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(str(16 * GB))
    (group / "memory.current").write_text(str(15 * GB))  # mostly pages of files, which it need not keep
    (group / "memory.stat").write_text(f"anon {used * GB}\ninactive_file {(15 - used) * GB}\n")
    free = available_host(tmp_path)
    assert free == (16 - used) * GB
    found = plan(published(), free_gpu=int(7.5 * GB), free_host=free)
    assert found.name == name
    assert found.host <= host * GB
    assert "of host memory" in found.reason
