"""Messages into boxes, on the CPU and between GPUs."""

import pytest
import torch
import torch.multiprocessing as mp
from helpers import TINY, psnr, relative_error
from rank_processes import CPU, gpu_latents, run_gpu_rank

from kandinsky.factory import get_T2V_pipeline
from kandinsky.parallel.boxes import GroupBox, Messenger
from kandinsky.parallel.ranks import Ranks
from kandinsky.video_shape import VideoShape


def test_each_rank_gets_everyones_letters(processes):
    """In two exchanges at once, told apart by their channels."""
    size = processes.size
    for rank, found in enumerate(processes.of("boxes")):
        assert found["came"] == [[10 * other, 10 * other + 1] for other in range(size) if other != rank]


def test_what_is_delivered_need_not_be_contiguous(processes):
    for rank, found in enumerate(processes.of("boxes")):
        sender = (rank - 1) % processes.size
        assert found["delivered"].tolist() == [1 + sender, 3 + sender, 5 + sender]


def test_a_view_is_a_place_in_the_box():
    box = GroupBox(64, CPU)
    box.view(8, (2, 3), torch.float32)[:] = torch.arange(6.0).view(2, 3)
    assert box.view(8, (6,), torch.float32).tolist() == [0, 1, 2, 3, 4, 5]
    assert box.view(8 + 4 * 4, (1,), torch.float32).tolist() == [4]


def test_an_exchange_of_nothing_is_over():
    assert GroupBox(8, CPU).exchange([], [])() is None


def test_ranks_agree_on_what_holds_for_all(processes):
    assert [rank["agreed"] for rank in processes.of("boxes")] == processes.size * [[True, False, False]]
    assert Messenger(Ranks(), CPU).all(True)


def test_boxes_are_kept_until_they_are_too_small():
    messenger = Messenger(Ranks(0, 2), CPU)
    box = messenger.box("one", 100)
    assert isinstance(box, GroupBox)
    assert messenger.box("one", 60) is box
    assert messenger.box("other", 60) is not box
    larger = messenger.box("one", 101)
    assert (larger is box, larger.size) == (False, 101)
    assert messenger.box("one", 100) is larger


def test_halves_are_used_in_turn():
    messenger = Messenger(Ranks(0, 2), CPU)
    assert [messenger.other_half("one") for _ in range(3)] == [1, 0, 1]
    assert messenger.other_half("other") == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_equal_one(tmp_path):
    """Messages between copy engines and through NCCL give what one GPU gives."""
    mp.spawn(run_gpu_rank, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    pipe = get_T2V_pipeline("cuda:0", cache_dir=TINY, progress=False)
    shape = VideoShape.from_request(1, 672, 384)
    latents = pipe.sample(pipe.encode("a cat"), shape, seed=3)
    frames = torch.cat([chunk.cpu() for chunk in pipe.vae.decode(gpu_latents())])
    for mode in ("tensor", "sequence"):
        assert torch.equal(ranks[0][mode][0], ranks[1][mode][0])
        print(f"{mode}: latents differ by {relative_error(ranks[0][mode][0], latents):.5f}")
        assert relative_error(ranks[0][mode][0], latents) < 1e-2
        assert ranks[1][mode][1] is None
        print(f"{mode}: frames of the same latents {psnr(ranks[0][mode][1], frames):.1f} dB")
        assert psnr(ranks[0][mode][1], frames) > 50
    for rank in ranks:
        for name in ("sums", "group sums"):
            assert [total.unique().tolist() for total in rank[name]] == [[3.0], [5.0], [7.0]]
