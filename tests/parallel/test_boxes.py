"""Two GPUs: messages between copy engines and through NCCL give what one GPU gives."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import TINY, psnr, relative_error

from kandinsky.factory import get_T2V_pipeline
from kandinsky.parallel.boxes import GroupBox, Mailbox, Messenger
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.tensor import Sum
from kandinsky.video_shape import VideoShape

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]
ROWS, COLUMNS = 1001, 256


def sums(messenger):
    """A sum in two pieces, the ranks' own parts being all ones and all twos, three times over."""
    results = []
    for turn in range(3):
        total = Sum(messenger, (ROWS, COLUMNS), torch.bfloat16)
        for start, stop in ((0, 500), (500, ROWS)):
            total.out[start:stop] = messenger.ranks.rank + 1 + turn
            total.begin(start, stop)
        results.append(total.finish().clone())
    return results


def some_latents():
    return torch.randn(5, 48, 84, 16, generator=torch.Generator().manual_seed(7))


def run_rank(rank, size, folder):
    torch.cuda.set_device(rank)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("nccl", init_method=store, rank=rank, world_size=size, device_id=torch.device("cuda", rank))
    results = {}
    for mode in ("tensor", "sequence"):
        pipe = get_T2V_pipeline(f"cuda:{rank}", cache_dir=TINY, progress=False, parallelism=mode)
        assert pipe.vae.messenger.one_host
        shape = VideoShape.from_request(1, 672, 384)
        latents = [pipe.sample_latents(pipe._encode("a cat"), shape, seed=3) for _ in range(2)]
        assert torch.equal(*latents)
        frames = [chunk.cpu() for chunk in pipe.vae.decode(some_latents())]
        results[mode] = (latents[0].cpu(), torch.cat(frames) if frames else None)
    messenger = Messenger(Ranks(rank, size), torch.device("cuda", rank))
    assert isinstance(messenger.box("sum", 1), Mailbox)
    results["sums"] = [total.cpu() for total in sums(messenger)]
    messenger.one_host = False
    assert isinstance(messenger.box("sum", 2**24), GroupBox)
    results["group sums"] = [total.cpu() for total in sums(messenger)]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_gpus_equal_one(tmp_path):
    mp.spawn(run_rank, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    pipe = get_T2V_pipeline("cuda:0", cache_dir=TINY, progress=False)
    shape = VideoShape.from_request(1, 672, 384)
    latents = pipe.sample_latents(pipe._encode("a cat"), shape, seed=3)
    frames = torch.cat([chunk.cpu() for chunk in pipe.vae.decode(some_latents())])
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
