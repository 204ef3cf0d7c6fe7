"""Clips of scenes."""

import pytest
import torch
from world_helpers import CPU

from kandinsky.training.world.grammar import parse
from kandinsky.training.world.render import BEAT, DISTANCES, TILE, draw_paths, draw_tiles, render

CAPTION = "a small red circle at the top moves right on a dark background"


def drawn(*captions, frames=5, seed=0, size=(64, 64)):
    scenes = [parse(caption) for caption in captions]
    return render(scenes, frames, size=size, generator=torch.Generator().manual_seed(seed), device=CPU)


def test_a_seed_gives_the_same_clips():
    one, other, third = (drawn(CAPTION, CAPTION, frames=9, seed=seed) for seed in (0, 0, 1))
    assert one.shape == (2, 9, 64, 64, 3)
    assert one.dtype == torch.uint8
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_a_clip_does_not_depend_on_its_shape_among_others():
    """Shapes are drawn together, and put back in the order of the scenes."""
    captions = [CAPTION.replace("circle", shape) for shape in ("cross", "circle", "cross", "square")]
    paths = draw_paths([parse(caption) for caption in captions], torch.Generator().manual_seed(0))
    clips = drawn(*captions, size=(64, 64))
    for index in range(4):
        red = clips[index, 2, ..., 0].float() - clips[index, 2, ..., 1]
        middle = red[:, :, None] * torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1)
        middle = middle.sum((0, 1)) / red.sum() / 64 - 0.5
        halfway = (paths.start[index] + paths.end[index]) / 2
        torch.testing.assert_close(middle, halfway, atol=0.02, rtol=0)


def test_a_moving_object_takes_all_frames_for_its_way():
    """The first and last frame show the same places however many there are; a single one is halfway."""
    short, long = drawn(CAPTION, frames=3), drawn(CAPTION, frames=9)
    assert torch.equal(short[0, 0], long[0, 0])
    assert torch.equal(short[0, 2], long[0, 8])
    assert torch.equal(short[0, 1], long[0, 4])
    assert torch.equal(drawn(CAPTION, frames=1)[0, 0], short[0, 1])


def test_objects_keep_a_margin():
    """No colour touches the edge, wherever an object starts and goes."""
    captions = [CAPTION.replace("small", "large").replace("right", way) for way in ("left", "right")]
    clips = drawn(*captions * 20, frames=3, size=(48, 96))
    hue = clips.amax(-1).int() - clips.amin(-1).int()
    assert hue.amax((1, 2, 3)).min() > 100
    edges = [hue[:, :, 0], hue[:, :, -1], hue[..., 0], hue[..., -1]]
    assert max(edge.max() for edge in edges) == 0


def test_tiles_change_with_the_beat():
    """The first frame is for itself, as in the VAE's latents."""
    tiles = draw_tiles(1, 1 + 2 * BEAT, (2 * TILE, 3 * TILE), torch.Generator().manual_seed(0))[0]
    assert tiles.unique().tolist() == [-1, 1]
    blocks = tiles.unflatten(1, (2, TILE)).unflatten(3, (3, TILE))
    assert torch.equal(blocks, blocks[:, :, :1, :, :1].expand_as(blocks))
    for start, stop in ((1, 1 + BEAT), (1 + BEAT, 1 + 2 * BEAT)):
        assert torch.equal(tiles[start:stop], tiles[start].expand(BEAT, -1, -1))
    assert not torch.equal(tiles[0], tiles[1]) or not torch.equal(tiles[1], tiles[1 + BEAT])


@pytest.mark.parametrize("shape", DISTANCES)
def test_shapes_are_of_radius_one(shape):
    """Inside is negative; nothing reaches beyond 1, and something reaches beyond 0.7."""
    fine = torch.linspace(-1.5, 1.5, 151)
    inside = DISTANCES[shape](fine[None], fine[:, None]) < 0
    assert inside[75, 75]
    places = fine[inside.any(0)].abs().max(), fine[inside.any(1)].abs().max()
    assert all(0.7 < place <= 1 for place in places)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="scenes=0, num_frames=3: allowed is 1 or more of each"):
        drawn(frames=3)
    with pytest.raises(ValueError, match="scenes=1, num_frames=0"):
        drawn(CAPTION, frames=0)
