"""What a server allows."""

import dataclasses

import pytest
from helpers import SMALL

from kandinsky.config import FLASH_512
from kandinsky.serving.options import DEMO_SIZE, Options


@pytest.mark.parametrize(("given", "longest"), [(None, 63), (3, 3), (63, 63), (1000, 63)])
def test_a_video_is_never_longer_than_the_weights_allow(given, longest):
    assert SMALL.max_seconds == 63
    assert Options(model_set=SMALL, max_seconds=given).longest == longest


def test_the_size_that_is_not_said():
    assert DEMO_SIZE in FLASH_512.sizes
    assert Options().size == DEMO_SIZE
    assert Options(model_set=SMALL).size == SMALL.sizes[0]


def test_defaults_are_those_of_the_contract():
    options = Options()
    assert (options.max_queue, options.max_jobs_of_key, options.max_prompt) == (1000, 100, 4000)
    assert (options.max_body, options.keep_days, options.log_prompts) == (16 * 2**20, 7, False)
    assert options.keys.owner_of(None) == "local"
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.max_queue = 2  # type: ignore[misc]
