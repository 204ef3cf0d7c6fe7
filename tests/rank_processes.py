"""What several processes do for the tests of `parallel`: jobs by name, whose results each rank leaves in a file.

They are here because a child process cannot import a test module. Processes on the CPU find each other as under a
launcher, through variables of the environment; see `run_together`.
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from fakes import WatchedDit, changed
from helpers import SMALL, TINY, fork_server, free_port
from model_helpers import SMALL_DIT
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kandinsky.batch.prompts import make_items
from kandinsky.batch.run import run_batch
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.errors import StoppedError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.interpolate.stream import interpolated
from kandinsky.loading.components import load_dit, load_vae
from kandinsky.model.layout import Clip, TokenLayout
from kandinsky.output.between import smoothed
from kandinsky.output.options import Output
from kandinsky.parallel.apply import SEQUENCE, TENSOR
from kandinsky.parallel.boxes import GroupBox, Letter, Mailbox, Messenger
from kandinsky.parallel.ranks import Ranks, open_group
from kandinsky.parallel.strips import strips_of
from kandinsky.parallel.tensor import PIECE_ROWS, Sum, SummedLinear
from kandinsky.parallel.watchdog import Watchdog, rescue
from kandinsky.vae.float8 import EMULATED
from kandinsky.vae.rows import Rows
from kandinsky.video_shape import VideoShape

CPU = torch.device("cpu")
FOUR_HEADS = replace(SMALL_DIT, model_dim=64, ff_dim=128)
"""A very small DiT with as many heads as there are ever ranks here."""
LAYOUT = TokenLayout((Clip((1, 2, 3), 5), Clip((2, 2, 3), 4)))
"""Two clips, cut by ranks where no segment ends."""
SHAPE = VideoShape.from_request(1, 96, 64, model_set=SMALL)
CLIP = np.random.default_rng(2).integers(0, 256, (9, 64, 64, 3), np.uint8)
KNOWN = {"image": CLIP[0], "last_image": CLIP[-1], "time_length": 1, "seed": 3, "output_type": "latent"}
EXTENDED = {"seconds": 1, "seed": 3, "crf": 1}
FILTERED = Output(kind="np", fps=None, crf=None, codec=None, metadata=False, interpolate=3, interpolate_with="ffmpeg")
SECONDS_TO_END = 200


def dit_inputs() -> tuple[Tensor, Tensor, Tensor, TokenLayout]:
    """For a DiT of 64 channels of text."""
    generator = torch.Generator().manual_seed(1)
    visual, text = torch.randn(3, 4, 6, 16, generator=generator), torch.randn(9, 64, generator=generator)
    return visual, text, torch.tensor([999, 499]), LAYOUT


def some_latents() -> Tensor:
    """[4, 5, 3, 16]: two chunks, and rows that ranks cannot share evenly."""
    return torch.randn(4, 5, 3, 16, generator=torch.Generator().manual_seed(7))


def linear_inputs() -> tuple[Tensor, torch.nn.Linear]:
    """Rows for two pieces of an overlapped sum."""
    generator = torch.Generator().manual_seed(2)
    linear = torch.nn.Linear(8, 3).requires_grad_(False)
    for value in linear.parameters():
        value.copy_(torch.randn(value.shape, generator=generator))
    return torch.randn(2 * PIECE_ROWS + 1, 8, generator=generator), linear


class Messages(TorchDispatchMode):
    """Counts what is asked of torch.distributed meanwhile."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.counts[func.name().removeprefix("c10d::").rstrip("_")] += 1
        return func(*args, **(kwargs or {}))


def in_ranks(ranks: Ranks, _folder: Path) -> dict:
    """What `Ranks` shares."""

    def refuse():
        raise ValueError(f"rank {ranks.rank} refuses")

    try:
        ranks.share_made(refuse)
        refusal = None
    except ValueError as error:
        refusal = str(error)
    mine = torch.tensor([1.5, 2.5]) if ranks.is_main else None
    return {
        "ranks": ranks,
        "opened again": open_group(CPU),
        "shared": ranks.share({"rank": ranks.rank}),
        "made": ranks.share_made(lambda: f"by {ranks.rank}"),
        "refusal": refusal,
        "tensor": ranks.share_tensor(mine, (2,), device=CPU, dtype=torch.float64),
        "gathered": ranks.gather(torch.arange(6.0).view(3, 2).T + 10 * ranks.rank),
    }


def in_boxes(ranks: Ranks, _folder: Path) -> dict:
    """What comes into a box: from each rank its number, in two exchanges that are under way at once."""
    messenger = Messenger(ranks, CPU)
    box = messenger.box("letters", 4 * 2 * ranks.size)
    others = [other for other in range(ranks.size) if other != ranks.rank]
    waits = []
    for channel in range(2):
        sends = [Letter(torch.tensor([10 * ranks.rank + channel]).int(), other, 0) for other in others]
        places = [(box.view(4 * (2 * other + channel), (1,), torch.int32), other) for other in others]
        waits.append(box.exchange(sends, places, channel=channel))
    for wait in reversed(waits):
        wait()
    came = box.view(0, (ranks.size, 2), torch.int32)[others].tolist()
    column = torch.arange(6.0).view(3, 2)[:, 1] + ranks.rank  # not contiguous
    place = box.view(0, (3,), torch.float32)
    box.deliver([Letter(column, (ranks.rank + 1) % ranks.size, 0)], [(place, (ranks.rank - 1) % ranks.size)])
    agreed = [messenger.all(one) for one in (True, ranks.is_main, False)]
    return {"came": came, "delivered": place.clone(), "agreed": agreed}


def in_sums(ranks: Ranks, _folder: Path) -> dict:
    """Sums that are begun piece by piece."""
    messenger = Messenger(ranks, CPU)
    x, linear = linear_inputs()
    share = slice(8 // ranks.size * ranks.rank, 8 // ranks.size * (ranks.rank + 1))
    part = torch.nn.Linear(8 // ranks.size, 3).requires_grad_(False)
    part.weight.copy_(linear.weight[:, share])
    part.bias.copy_(linear.bias)
    return {"sums": sums(messenger, 101, 8), "linear": SummedLinear(part, messenger)(x[:, share]).clone()}


def sums(messenger: Messenger, rows: int, columns: int) -> list[Tensor]:
    """A sum in two pieces, the ranks' own parts being all ones and all twos, three times over."""
    results = []
    for turn in range(3):
        total = Sum(messenger, (rows, columns), torch.bfloat16)
        for start, stop in ((0, rows // 2), (rows // 2, rows)):
            total.out[start:stop] = messenger.ranks.rank + 1 + turn
            total.begin(start, stop)
        results.append(total.finish().clone())
    return results


def in_dit(ranks: Ranks, folder: Path) -> dict:
    """A rank's velocity of `folder/dit.safetensors`, what it holds, and what is sent for it."""
    results = {}
    for kind in (TENSOR, SEQUENCE):
        dit = load_dit(
            open_checkpoint(folder / "dit.safetensors"),
            build=lambda config, kind=kind: kind.build(config, ranks),
            shard=kind.shard(ranks),
            device=CPU,
            dtype=torch.float32,
        )
        kind.apply_(dit, Messenger(ranks, CPU))
        with torch.inference_mode(), Messages() as messages:
            velocity = dit(*dit_inputs())
        weights = sum(parameter.numel() for parameter in dit.blocks[0].parameters())
        results[kind.name] = {"velocity": velocity, "counts": dict(messages.counts), "weights": weights}
    return results


def in_strips(ranks: Ranks, _folder: Path) -> dict:
    """Frames of a picture whose rows are shared out; the main rank's alone has any."""
    rows_of = strips_of(Messenger(ranks, CPU))
    vae = load_vae(TINY / "vae", device=CPU, dtype=torch.float32, rows_of=rows_of)
    found = {
        saving: [chunk.clone() for chunk in vae.decode(some_latents(), memory_saving=saving)]
        for saving in (False, True)
    }
    fast = load_vae(TINY / "vae", device=CPU, dtype=torch.float32, rows_of=rows_of, convert=EMULATED)
    flat = some_latents()[:, : ranks.size - 1]
    rows = rows_of(5)
    chunks = vae.decode(some_latents(), everywhere=True)
    return {
        "frames": found,
        "float8": [chunk.clone() for chunk in fast.decode(some_latents())],
        "rows": rows.rows,
        "flat": [chunk.clone() for chunk in vae.decode(flat)],
        "everywhere": [chunk.clone() for chunk in vae.decode(some_latents(), everywhere=True)],
        "filtered": [chunk.copy() for chunk in smoothed(vae, some_latents(), FILTERED, memory_saving=None)],
        "between": [chunk.clone() for chunk in interpolated(chunks, 3, ends, share=rows)],
        "shares": [rows.share_of(count) for count in (0, 1, 5)],
        "pieces": [joined(rows, count) for count in (5, 0, 1, 5)],
    }


def ends(frames: Tensor, factor: int) -> Tensor:
    """In each gap its first frame, then its last one, in turn."""
    return torch.stack([frames[1:] if place % 2 else frames[:-1] for place in range(factor - 1)], dim=1)


def joined(rows: Rows, count: int) -> Tensor | None:
    """Numbers that each rank has its share of."""
    return rows.join(torch.arange(2 * count).view(count, 2)[rows.share_of(count)], count)


def in_watchdog(ranks: Ranks, _folder: Path) -> dict:
    """Whether this process is watched, and what is rescued meanwhile."""
    watchdog, saved = Watchdog.active, []
    assert watchdog is not None
    with rescue(saved.append):
        during = list(watchdog.rescues)
    return {"others": watchdog.others, "during": len(during), "after": len(watchdog.rescues), "rank": ranks.rank}


def in_pipelines(ranks: Ranks, folder: Path) -> dict:
    """A whole pipeline that makes each video together with the other ranks."""
    results = {}
    for mode in ("tensor", "sequence"):
        pipe = get_T2V_pipeline("cpu", cache_dir=folder / "weights", parallelism=mode, progress=False)
        latents = pipe.sample(pipe.encode("a cat"), SHAPE, seed=3)
        frames = [chunk.clone() for chunk in pipe.vae.decode(latents)]
        # What the other ranks ask for does not count.
        image = pipe("a cat" if ranks.is_main else "ignored", time_length=0, width=64, height=64, seed=3 + ranks.rank)
        call = {"time_length": 1, "width": 96, "height": 64, "seed": 3, "output_type": "pt"}
        results[mode] = {
            "smooth": pipe("a cat", **call, interpolate=3, interpolate_with="network"),
            "latents": latents,
            "frames": torch.cat(frames) if frames else None,
            "image": image and torch.from_numpy(np.asarray(image[0]).copy()),
            "has_text_encoder": pipe.text_encoder is not None,
            "known": pipe("a cat" if ranks.is_main else "ignored", **KNOWN),
            "extended": extended(pipe, folder / f"{mode}.mp4"),
        }
    results["batch"] = batch(pipe, ranks, folder / "together")
    results["interrupted"] = [interrupted(pipe, ranks, rank) for rank in (0, 1)]
    return results


def extended(pipe, path: Path) -> int | None:
    """How many frames `pipe.extend` says that it wrote; None on ranks that do not write."""
    result = pipe.extend(CLIP, "a cat", path, **EXTENDED)
    return result and result.num_frames


def in_adapters(_ranks: Ranks, folder: Path) -> dict:
    """Latents of a pipeline before low-rank weights are merged, with them, and after."""
    results = {}
    for mode in ("tensor", "sequence"):
        pipe = get_T2V_pipeline("cpu", cache_dir=folder / "weights", parallelism=mode, progress=False)

        def latents(pipe=pipe):
            return pipe.sample(pipe.encode("a cat"), SHAPE, seed=3)

        before = latents()
        pipe.load_lora_weights(folder / "lora.safetensors")
        merged = latents()
        pipe.unload_lora_weights()
        results[mode] = {"before": before, "merged": merged, "after": latents()}
    return results


def interrupted(pipe, ranks: Ranks, rank: int) -> str:
    """What a call gives, or its error, that nobody watches and one rank's user interrupts in its second step."""

    def interrupt(index):
        running.interrupt = index == 1 and ranks.rank == rank

    running = changed(pipe, dit=WatchedDit(pipe.dit, interrupt))
    try:
        return type(running("a cat", time_length=0, width=64, height=64, output_type="latent")).__name__
    except StoppedError as error:
        return str(error)


def in_jobs(ranks: Ranks, folder: Path) -> dict:
    """A pipeline that makes videos of its own: three prompts for the ranks, each made by one of them; and a batch."""
    pipe = get_T2V_pipeline("cpu", cache_dir=folder / "weights", parallelism="none", progress=False)
    prompts = ["a cat", "a dog", "a cow"] if ranks.is_main else "ignored"
    results = pipe(prompts, folder / "v.mp4", time_length=1, width=64, height=64, seed=3)
    return {
        "made": [(result.path.name, result.seed) for result in results],
        "known": pipe("a cat", **{**KNOWN, "bs": 2}),
        "extended": extended(pipe, folder / "none.mp4"),
        "batch": batch(pipe, ranks, folder / "each"),
    }


def batch(pipe, ranks: Ranks, folder: Path) -> tuple | None:
    """Two prompts in one batch; what the other ranks ask for does not count."""
    prompts = ["a cat", "a dog"] if ranks.is_main else ["ignored"]
    items = make_items(prompts, {"seed": 3, "time_length": 0, "width": 64, "height": 64}, model_set=SMALL)
    result = run_batch(pipe, items, folder)
    return result and (result.made, result.skipped, result.failed)


JOBS = {
    "ranks": in_ranks,
    "boxes": in_boxes,
    "sums": in_sums,
    "dit": in_dit,
    "strips": in_strips,
    "watchdog": in_watchdog,
    "pipelines": in_pipelines,
    "jobs": in_jobs,
    "adapters": in_adapters,
}


def run_rank(folder: Path, names: list[str], variables: dict[str, str]) -> None:
    """One process: do the jobs, leave their results in `folder`."""
    os.environ |= variables
    torch.set_num_threads(1)
    ranks = open_group(CPU)
    results = {name: JOBS[name](ranks, folder) for name in names}
    torch.save(results, folder / f"{ranks.rank}.pt")
    assert Watchdog.active is not None
    Watchdog.active.finish()
    dist.destroy_process_group()


def run_together(size: int, folder: Path, names: list[str]) -> list[dict]:
    """Results of each of `size` ranks."""
    group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    each = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    processes = [fork_server().Process(target=run_rank, args=(folder, names, variables)) for variables in each]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS_TO_END)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def gpu_latents() -> Tensor:
    return torch.randn(5, 48, 84, 16, generator=torch.Generator().manual_seed(7))


def run_gpu_rank(rank: int, size: int, folder: str) -> None:
    """One process with a GPU of its own."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(rank)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("nccl", init_method=store, rank=rank, world_size=size, device_id=device)
    results = {}
    for mode in ("tensor", "sequence"):
        pipe = get_T2V_pipeline(f"cuda:{rank}", cache_dir=TINY, progress=False, parallelism=mode)
        shape = VideoShape.from_request(1, 672, 384)
        latents = [pipe.sample(pipe.encode("a cat"), shape, seed=3) for _ in range(2)]
        assert torch.equal(*latents)
        frames = [chunk.cpu() for chunk in pipe.vae.decode(gpu_latents())]
        results[mode] = (latents[0].cpu(), torch.cat(frames) if frames else None)
    messenger = Messenger(Ranks(rank, size), device)
    assert messenger.one_host
    assert isinstance(messenger.box("sum", 1), Mailbox)
    results["sums"] = [total.cpu() for total in sums(messenger, 1001, 256)]
    messenger = Messenger(Ranks(rank, size), device, one_host=False)
    assert isinstance(messenger.box("sum", 2**24), GroupBox)
    results["group sums"] = [total.cpu() for total in sums(messenger, 1001, 256)]
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
