"""The choice of memory modes, and what is said when none fits."""

import dataclasses

import pytest

from kandinsky.config import FLASH_512
from kandinsky.errors import NothingFits
from kandinsky.memory.footprint import Component
from kandinsky.memory.modes import BLOCKS, RESIDENT, STAGED
from kandinsky.memory.planner import LADDER, MARGIN, Needs, outcome, plan, plan_or_nearest, smaller
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
    with pytest.raises(NothingFits, match=r"needs 21\.0 GB of host memory"):
        chosen(17, host=5)


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
