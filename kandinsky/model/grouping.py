"""Attention over clips and, where the layout asks for it, over groups of a clip's visual tokens.

Source: the published code's local (windows) and global (dilated sets) attention. Each group attends to itself and to
all of the clip's text; the text output is that of group 0. At the 512 resolution there is one group and one clip, and
`attend_clips` is a single call of the attention callable.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from kandinsky.model.layout import Clip, TokenLayout

Attend = Callable[[Tensor], Tensor]
"""qkv [tokens, 3, heads, head_dim] -> [tokens, heads, head_dim]: full attention among these tokens."""

_WINDOWS = "(gt t gh h gw w) ... -> (gt gh gw) (t h w) ..."
_DILATED = "(t gt h gh w gw) ... -> (gt gh gw) (t h w) ..."


def attend_clips(qkv: Tensor, *, layout: TokenLayout, attend: Attend, dilated: bool) -> Tensor:
    """Attention of each clip within itself.

    Args:
        qkv: `[tokens, 3, heads, head_dim]`, the whole stream.
        dilated: cut clips into strided sets (global blocks) instead of windows (local blocks).

    Returns:
        `[tokens, heads, head_dim]`.
    """
    if layout.is_one_sequence:
        return attend(qkv)
    parts = qkv.split([clip.tokens for clip in layout.clips])
    if layout.num_groups == (1, 1, 1):
        return torch.cat([attend(part) for part in parts])
    pattern = _DILATED if dilated else _WINDOWS
    clips = zip(parts, layout.clips, strict=True)
    return torch.cat([_attend_groups(part, clip, layout.num_groups, attend, pattern) for part, clip in clips])


def _attend_groups(qkv: Tensor, clip: Clip, num_groups: tuple[int, int, int], attend: Attend, pattern: str) -> Tensor:
    (frames, rows, columns), (gt, gh, gw) = clip.grid, num_groups
    sizes = {"gt": gt, "gh": gh, "gw": gw, "t": frames // gt, "h": rows // gh, "w": columns // gw}
    visual, text = qkv.split((clip.visual_tokens, clip.text_tokens))
    outputs = [attend(torch.cat((group, text))) for group in rearrange(visual, pattern, **sizes)]
    together = torch.stack([output[: -clip.text_tokens or None] for output in outputs])
    back = " -> ".join(reversed(pattern.split(" -> ")))
    return torch.cat((rearrange(together, back, **sizes), outputs[0][len(outputs[0]) - clip.text_tokens :]))
