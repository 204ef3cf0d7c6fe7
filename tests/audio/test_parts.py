"""Everything of a V2A pipeline that runs: a frozen value."""

import dataclasses

import pytest
from audio_helpers import FakeEncoder

from kandinsky.audio.load import LazyEncoder
from kandinsky.audio.parts import EncoderSource, SoundParts


def test_parts_put_together_by_hand():
    parts = SoundParts(unet="a", vae="b", scheduler={})
    assert (parts.encoder, parts.cache, parts.origin, parts.progress) == (None, None, None, True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        parts.unet = "c"  # type: ignore[misc]
    assert dataclasses.replace(parts, unet="c").unet == "c"


@pytest.mark.parametrize("kind", [LazyEncoder, FakeEncoder])
def test_encoders_have_all_that_is_asked_of_them(kind):
    names = {name for name in vars(EncoderSource) if not name.startswith("_")} | {"__call__"}
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    assert names <= fields | set(dir(kind))
