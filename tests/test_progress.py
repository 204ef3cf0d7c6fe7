"""What happens around a stage and after a step."""

from dataclasses import dataclass, field

import pytest
import torch

from kandinsky.errors import StoppedError
from kandinsky.progress import Clock, Steps

CPU = torch.device("cpu")
LATENTS = torch.zeros(1, 2, 2, 16)


@dataclass
class Team:
    """Of two ranks; `answers` are the first one's, which the other one hears."""

    is_main: bool = True
    size: int = 2
    answers: list = field(default_factory=list)
    tensors: list = field(default_factory=list)

    def share(self, value):
        if self.is_main:
            self.answers.append(value)
            return value
        return self.answers.pop(0)

    def share_tensor(self, tensor, shape, *, device, dtype):
        if self.is_main:
            self.tensors.append(tensor)
            return tensor
        assert tensor is None
        return self.tensors.pop(0).to(device, dtype).view(shape)


def steps(team, watch, *, progress=False):
    return Steps(4, team=team, watch=watch, description="sampling, seed 3", progress=progress)


def test_nobody_is_asked_where_nobody_wants_to_know():
    team = Team()
    with steps(team, None) as on_step:
        assert [on_step(index, LATENTS) for index in range(4)] == [None] * 4
    assert team.answers == []


def test_whoever_is_asked_may_give_other_latents():
    """All ranks go on with those of the first one; only it is asked."""
    seen = []

    def watch(index, latents):
        seen.append((index, latents is LATENTS))
        return True, latents + 1 if index == 1 else None

    first = Team()
    with steps(first, watch) as on_step:
        replaced = [on_step(index, LATENTS) for index in range(4)]
    assert seen == [(index, True) for index in range(4)]
    assert [value is None for value in replaced] == [True, False, True, True]
    assert torch.equal(replaced[1], LATENTS + 1)

    other = Team(is_main=False, answers=first.answers, tensors=first.tensors)
    with steps(other, lambda *_: pytest.fail("only the first rank is asked")) as on_step:
        heard = [on_step(index, LATENTS) for index in range(4)]
    assert torch.equal(heard[1], LATENTS + 1)
    assert [value is None for value in heard] == [True, False, True, True]


def test_all_stop_together():
    first = Team()
    with (
        pytest.raises(StoppedError, match="a callback or an interrupt stopped the run after step 2 of 4"),
        steps(first, lambda index, _: (index < 1, None)) as on_step,
    ):
        for index in range(4):
            on_step(index, LATENTS)
    other = Team(is_main=False, answers=first.answers)
    with pytest.raises(StoppedError, match="after step 2 of 4"), steps(other, lambda *_: (True, None)) as on_step:
        for index in range(4):
            on_step(index, LATENTS)


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar(capsys, progress):
    with steps(Team(), None, progress=progress) as on_step:
        for index in range(4):
            on_step(index, LATENTS)
    shown = capsys.readouterr().err
    assert ("sampling, seed 3" in shown and "/4" in shown) == progress
    assert bool(shown) == progress


def test_seconds_of_each_stage():
    clock = Clock(frozenset([CPU]))
    with clock.stage("text"):
        pass
    before = clock.total()
    with clock.host_stage("write"), clock.stage("decode"):
        pass
    after = clock.total()
    assert list(before) == ["text", "total"]
    assert list(after) == ["text", "decode", "write", "total"]
    assert after["total"] >= before["total"] >= before["text"] >= 0
    assert after["write"] >= after["decode"]
    assert clock.peak_memory == {}  # which only CUDA counts


def test_a_stage_that_fails_has_no_seconds():
    clock = Clock(frozenset())
    with pytest.raises(ArithmeticError), clock.stage("sample"):
        raise ArithmeticError
    assert list(clock.total()) == ["total"]
