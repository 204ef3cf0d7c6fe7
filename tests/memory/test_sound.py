"""What V2A takes of a GPU, and whether it fits."""

from types import SimpleNamespace

import pytest
import torch

from kandinsky.errors import NothingFits
from kandinsky.memory.footprint import LIBRARY_BYTES
from kandinsky.memory.sound import WORKING_BYTES, check_sound_fits, fits, sound_bytes


def test_weights_in_the_dtypes_that_are_computed_with():
    files = {"unet": SimpleNamespace(shapes={"a": (1000, 1000), "b": ()}), "vae": SimpleNamespace(shapes={"a": (10,)})}
    needed = sound_bytes(files, {"unet": torch.bfloat16, "vae": torch.float32})  # type: ignore[arg-type]
    assert needed == 2 * 1_000_001 + 4 * 10 + WORKING_BYTES + LIBRARY_BYTES


def test_a_tenth_is_kept_for_fragments():
    assert fits(90, 100)
    assert not fits(91, 100)


def test_no_room():
    check_sound_fits(9 * 10**9, 10**10)
    with pytest.raises(NothingFits, match=r"needs 9\.5 GB of the GPU and 10\.0 GB are free .* What would fit"):
        check_sound_fits(95 * 10**8, 10**10)
