"""Several processes: the main rank has T5 and VAE, and every rank the same latents."""

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import SMALL, TINY

from kandinsky.factory import get_T2V_pipeline
from kandinsky.video_shape import VideoShape


def run_rank(rank, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, progress=False)
    assert (pipe.text_encoder is None) == (pipe.vae is None) == (rank != 0)
    pipe.model_set = SMALL
    # Without a seed one is drawn on the main rank; each rank would draw another.
    frames = pipe("a cat" if rank == 0 else "ignored", time_length=0, width=64, height=64)
    text = pipe._encode("a cat")
    latents = pipe.sample_latents(text, VideoShape.from_request(1, 64, 64, model_set=SMALL), seed=3)
    torch.save({"latents": latents, "images": frames and [np.asarray(f) for f in frames]}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree(tmp_path, pipe):
    mp.spawn(run_rank, args=(2, str(tmp_path)), nprocs=2)
    main, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert torch.equal(main["latents"], other["latents"])
    assert other["images"] is None
    assert len(main["images"]) == 1
    alone = pipe.sample_latents(pipe._encode("a cat"), VideoShape.from_request(1, 64, 64, model_set=SMALL), seed=3)
    assert torch.equal(main["latents"], alone)
