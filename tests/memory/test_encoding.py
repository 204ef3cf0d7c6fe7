"""What encoding given pixels needs, as it was measured."""

import json

import pytest
import torch
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import locate
from kandinsky.config import FLASH_512
from kandinsky.memory.encoding import encoder_component
from kandinsky.memory.needs import needs_from
from kandinsky.model.precision import precision_of
from kandinsky.video_shape import VideoShape

PUBLISHED = {"block_out_channels": [128, 256, 256, 512]}


@pytest.mark.parametrize(
    ("seconds", "size", "gib"),
    [(0, (672, 384), 1.42), (12, (672, 384), 5.73), (0, (512, 512), 1.44), (12, (512, 512), 5.81)],
)
def test_as_measured(seconds, size, gib):
    """On an H100: a picture, and a clip of 25 frames, whose memory a longer one's is."""
    shape = VideoShape.from_request(seconds, *size, model_set=FLASH_512)
    found = encoder_component(PUBLISHED, {}, shape, dtype=torch.bfloat16).working
    assert found / 2**30 == pytest.approx(gib, rel=0.06)


def test_weights_are_the_encoders(tiny_paths):
    config = json.loads((TINY / "vae" / "config.json").read_text())
    shapes = open_checkpoint(TINY / "vae").shapes
    shape = VideoShape.from_request(1, 512, 512, model_set=FLASH_512)
    found = encoder_component(config, shapes, shape, dtype=torch.bfloat16)
    assert sum(found.blocks) == 2 * sum(
        torch.Size(size).numel() for name, size in shapes.items() if name.startswith("encoder")
    )
    needs = needs_from(tiny_paths, {"vae": torch.bfloat16}, text_tokens=224)(shape, precision_of("exact"))
    assert needs.encoder == found


@pytest.fixture
def tiny_paths():
    return locate(
        TINY, model_set=FLASH_512, given={}, local_files_only=True, revision={}, precision=precision_of("exact")
    )
