"""What comes back of a sound never changes."""

import dataclasses

import pytest
import torch

from kandinsky.audio.result import SoundResult
from kandinsky.output.result import Result


def test_it_is_a_result_and_frozen():
    made = SoundResult(
        seed=3,
        timings={},
        peak_memory={},
        waveform=torch.zeros(4),
        sample_rate=44_100,
        spectrogram=torch.zeros(512, 2, 3, dtype=torch.uint8),
        path=None,
    )
    assert isinstance(made, Result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seed = 4  # type: ignore[misc]
