"""Messages cross pipes and clusters: each is a frozen value that is the same after pickling."""

import dataclasses
import pickle
from typing import get_args

import pytest
from serving_kit import ASKED

from kandinsky.serving import messages
from kandinsky.serving.messages import FromWorker, ToWorker

VALUES = {"job_id": "video_1", "asked": ASKED, "folder": "x", "wanted": True, "pid": 1, "reason": "no",
          "argument": True,
          "name": "sample", "step": 1, "total": 4, "code": "x", "how": "exit code 1"}  # fmt: skip
KINDS = [*get_args(ToWorker), *get_args(FromWorker)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_is_the_same_on_the_other_side(kind):
    needed = [one.name for one in dataclasses.fields(kind) if one.default is one.default_factory is dataclasses.MISSING]
    message = kind(**{name: VALUES[name] for name in needed})
    assert pickle.loads(pickle.dumps(message)) == message  # noqa: S301  # our own
    for one in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(message, one.name, None)


def test_every_message_goes_one_way():
    made = {
        value
        for value in vars(messages).values()
        if dataclasses.is_dataclass(value) and value.__module__ == messages.__name__
    }
    assert made == set(KINDS)
    assert len(KINDS) == len(set(KINDS))
