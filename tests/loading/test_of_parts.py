"""Parts by their names."""

from kandinsky.loading.of_parts import OfParts


def test_each_part_has_its_name(pipe):
    held = OfParts(pipe.parts)
    assert held.parts is pipe.parts
    for name in ("dit", "vae", "text_encoder", "model_set", "ranks", "team", "origin"):
        assert getattr(held, name) is getattr(pipe.parts, name)
    assert held.is_resident
    assert not held.progress
