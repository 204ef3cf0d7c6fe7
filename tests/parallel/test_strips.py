"""One picture decoded in strips is the picture decoded whole."""

import numpy as np
import pytest
import torch
from helpers import TINY
from rank_processes import CPU, some_latents

from kandinsky.interpolate.minterpolate import minterpolated
from kandinsky.loading.components import load_vae
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.strips import Strip, strips_of
from kandinsky.vae.float8 import EMULATED
from kandinsky.vae.rows import WHOLE


@pytest.fixture(scope="module")
def vae():
    return load_vae(TINY / "vae", device=CPU, dtype=torch.float32)


def rows_of(rank, size, latent_rows):
    return strips_of(Messenger(Ranks(rank, size), CPU))(latent_rows)


@pytest.mark.parametrize("memory_saving", [False, True])
def test_strips_make_the_whole_picture(processes, vae, memory_saving):
    """Five rows; the main rank has the frames. Sums are taken in another order."""
    first, *others = [rank["frames"][memory_saving] for rank in processes.of("strips")]
    assert all(frames == [] for frames in others)
    whole = list(vae.decode(some_latents()))
    assert [part.shape for part in first] == [part.shape for part in whole]
    differ = torch.cat(first).int() - torch.cat(whole).int()
    assert differ.abs().max() <= 1
    assert (differ != 0).float().mean() < 1e-3


def test_float8_in_strips(processes, vae):
    """Rows that are exchanged are rounded already; a sum in another order may round a number the other way."""
    first, *others = [rank["float8"] for rank in processes.of("strips")]
    assert all(frames == [] for frames in others)
    whole = torch.cat(
        list(load_vae(TINY / "vae", device=CPU, dtype=torch.float32, convert=EMULATED).decode(some_latents()))
    )
    exact = torch.cat(list(vae.decode(some_latents())))
    differ = torch.cat(first).int() - whole.int()
    assert differ.abs().max() <= 1
    assert (differ != 0).float().mean() < 0.1 * (whole != exact).float().mean()


def test_fewer_rows_than_ranks_are_decoded_by_the_first(processes, vae):
    first, *others = [rank["flat"] for rank in processes.of("strips")]
    assert all(frames == [] for frames in others)
    whole = torch.cat(list(vae.decode(some_latents()[:, : processes.size - 1])))
    assert (torch.cat(first).int() - whole.int()).abs().max() <= 1  # one thread sums in another order than two


def test_all_ranks_may_have_the_frames(processes):
    first, *others = [rank["everywhere"] for rank in processes.of("strips")]
    assert torch.equal(torch.cat(first), torch.cat(processes.of("strips")[0]["frames"][False]))
    for other in others:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(other, first, strict=True))


def test_pieces_of_work_are_shared_out_and_joined(processes):
    """Fewer than there are ranks too, and none."""
    ranks = processes.of("strips")
    for index, count in enumerate((0, 1, 5)):
        assert [piece for rank in ranks for piece in range(count)[rank["shares"][index]]] == list(range(count))
    first, *others = [rank["pieces"] for rank in ranks]
    assert all(found is None for other in others for found in other)
    for found, count in zip(first, (5, 0, 1, 5), strict=True):
        assert torch.equal(found, torch.arange(2 * count).view(count, 2))


def test_gaps_are_filled_by_all_ranks(processes):
    first, *others = [rank["between"] for rank in processes.of("strips")]
    assert all(chunks == [] for chunks in others)
    frames = torch.cat(processes.of("strips")[0]["frames"][False])
    made = torch.cat(first)
    assert len(made) == 3 * (len(frames) - 1) + 1
    assert torch.equal(made[::3], frames)
    assert torch.equal(made[1::3], frames[:-1])
    assert torch.equal(made[2::3], frames[1:])


def test_the_first_rank_alone_has_what_ffmpeg_makes_of_all_rows(processes):
    first, *others = [rank["filtered"] for rank in processes.of("strips")]
    assert all(chunks == [] for chunks in others)
    frames = torch.cat(processes.of("strips")[0]["frames"][False]).numpy()
    expected = np.concatenate(list(minterpolated([frames], 3)))
    assert np.array_equal(np.concatenate(first), expected)


def test_each_row_is_one_ranks(processes):
    rows = [rank["rows"] for rank in processes.of("strips")]
    assert [row for part in rows for row in range(5)[part]] == list(range(5))


def test_who_decodes_what():
    assert rows_of(0, 3, 2) is WHOLE
    assert rows_of(1, 3, 2) is None
    strips = [rows_of(rank, 3, 3) for rank in range(3)]
    assert all(isinstance(strip, Strip) for strip in strips)
    assert [strip.rows for strip in strips] == [slice(0, 1), slice(1, 2), slice(2, 3)]


def test_pixels_are_the_pictures():
    strip = rows_of(1, 2, 5)
    assert strip.rows == slice(2, 5)
    assert strip.pixels(3 * 8.0) == 5 * 8
