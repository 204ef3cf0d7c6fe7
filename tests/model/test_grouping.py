"""Attention over clips and groups, against attention of each part by itself."""

import pytest
import torch
from model_helpers import oracle

from kandinsky.model.grouping import attend_clips
from kandinsky.model.layout import Clip, TokenLayout

CLIPS = (Clip((2, 4, 2), 3), Clip((1, 2, 4), 2))
LAYOUT = TokenLayout(CLIPS, (1, 2, 2))


def stream(clips=CLIPS):
    return torch.randn(sum(clip.tokens for clip in clips), 3, 2, 8, generator=torch.Generator().manual_seed(0))


def members(clip: Clip, *, dilated: bool) -> list[list[int]]:
    """Visual tokens of each of two by two groups: windows, or sets of every second row and column."""
    frames, rows, columns = clip.grid
    groups = [[] for _ in range(4)]
    for frame in range(frames):
        for row in range(rows):
            for column in range(columns):
                place = (row % 2, column % 2) if dilated else (row // (rows // 2), column // (columns // 2))
                groups[2 * place[0] + place[1]].append((frame * rows + row) * columns + column)
    return groups


def expected_of(qkv, clip, *, dilated):
    """Each group attends to itself and to the clip's text; the text's output is the first group's."""
    text = list(range(clip.visual_tokens, clip.tokens))
    out = torch.empty(clip.tokens, *qkv.shape[2:], dtype=torch.float64)
    for group in reversed(members(clip, dilated=dilated)):
        out[group + text] = oracle(qkv[group + text])
    return out


@pytest.mark.parametrize("dilated", [False, True])
def test_groups(dilated):
    qkv = stream()
    found = attend_clips(qkv, layout=LAYOUT, attend=oracle, dilated=dilated)
    parts = qkv.split([clip.tokens for clip in CLIPS])
    expected = [expected_of(part, clip, dilated=dilated) for part, clip in zip(parts, CLIPS, strict=True)]
    torch.testing.assert_close(found, torch.cat(expected))


@pytest.mark.parametrize("dilated", [False, True])
def test_groups_of_a_clip_without_text(dilated):
    clip = Clip((1, 4, 4), 0)
    qkv = stream((clip,))
    found = attend_clips(qkv, layout=TokenLayout((clip,), (1, 2, 2)), attend=oracle, dilated=dilated)
    torch.testing.assert_close(found, expected_of(qkv, clip, dilated=dilated))


def test_clips_attend_within_themselves():
    qkv = stream()
    found = attend_clips(qkv, layout=TokenLayout(CLIPS), attend=oracle, dilated=True)
    torch.testing.assert_close(found, torch.cat([oracle(part) for part in qkv.split([19, 10])]))


def test_one_clip_is_one_call():
    calls = []
    qkv = stream(CLIPS[:1])
    attend_clips(qkv, layout=TokenLayout(CLIPS[:1]), attend=calls.append, dilated=False)
    assert len(calls) == 1
    assert calls[0] is qkv
