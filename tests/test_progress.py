"""What is asked after a step, and what a stage took."""

import pytest
import torch

from kandinsky.errors import StoppedError
from kandinsky.parallel.ranks import Ranks
from kandinsky.progress import Clock, Steps

LATENTS = torch.ones(1, 2, 2, 4)


def steps(watch, team=None):
    return Steps(4, team=team or Ranks(), watch=watch, description="try", progress=False)


def test_nobody_is_asked():
    with steps(None) as on_step:
        assert on_step(0, LATENTS) is None


def test_latents_are_replaced_and_the_run_is_stopped():
    with steps(lambda index, latents: (index < 2, latents * 2 if index == 1 else None)) as on_step:
        assert on_step(0, LATENTS) is None
        replaced = on_step(1, LATENTS)
        assert replaced is not None
        assert torch.equal(replaced, LATENTS * 2)
        with pytest.raises(StoppedError, match="a callback stopped the run after step 3 of 4"):
            on_step(2, LATENTS)


class Second(Ranks):
    """The second of two ranks, which hears what the first one said."""

    def share(self, _value):
        return False, False


def test_ranks_stop_with_the_first():
    asked = []
    with steps(lambda *_: asked.append(1) or (True, None), Second(1, 2)) as on_step, pytest.raises(StoppedError):
        on_step(0, LATENTS)
    assert not asked


def test_a_clock_tells_stages_and_their_sum():
    clock = Clock(frozenset([torch.device("cpu")]))
    with clock.stage("sample"):
        pass
    with clock.host_stage("write"):
        pass
    total = clock.total()
    assert list(total) == ["sample", "write", "total"]
    assert total["total"] >= total["sample"] + total["write"]
    assert list(clock.seconds) == ["sample", "write"]  # what was given away does not change
    assert clock.peak_memory == {}
