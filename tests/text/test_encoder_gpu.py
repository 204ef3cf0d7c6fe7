"""The text encoder's CUDA graph, on a GPU."""

import pytest
import torch
from helpers import TINY

from kandinsky.factory import get_T2V_pipeline


@pytest.mark.gpu
def test_text_encoder_graph_equals_eager():
    encoder = get_T2V_pipeline("cuda", cache_dir=TINY, progress=False).text_encoder.encoder
    eager, captured, replayed = (encoder("a cat") for _ in range(3))
    other = encoder("a dog")
    assert torch.equal(eager, captured)
    assert torch.equal(eager, replayed)
    assert not torch.equal(eager, other)
