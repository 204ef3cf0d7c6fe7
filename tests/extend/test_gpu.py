"""Extensions on a GPU: the same file in every memory mode, and again after a stop."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import SMALL, own_weights

from kandinsky.errors import StoppedError
from kandinsky.factory import get_T2V_pipeline

pytestmark = pytest.mark.gpu
CLIP = np.random.default_rng(1).integers(0, 256, (17, 64, 64, 3), np.uint8)
ASKED = {"seconds": 2, "seed": 3}


def test_the_same_file_in_every_memory_mode(tmp_path):
    weights = own_weights(tmp_path / "weights", replace(SMALL, max_seconds=2))
    made = {}
    for memory in ("resident", "staged", "blocks"):
        pipe = get_T2V_pipeline(
            "cuda", cache_dir=weights, memory=memory, attention="torch", local_files_only=True, progress=False
        )
        result = pipe.extend(CLIP, "a cat", tmp_path / f"{memory}.mp4", **ASKED)
        made[memory] = result.path.read_bytes()
        assert result.num_frames == len(CLIP) + 16
        assert result.peak_memory.keys() == {"text", "given", "sample", "decode"}
    assert made["resident"] == made["staged"] == made["blocks"]
    calls = []
    with pytest.raises(StoppedError):
        pipe.extend(CLIP, "a cat", tmp_path / "v.mp4", **ASKED, on_step=lambda *_: calls.append(1) or len(calls) < 6)
    assert pipe.extend(CLIP, "a cat", tmp_path / "v.mp4", **ASKED).path.read_bytes() == made["resident"]
