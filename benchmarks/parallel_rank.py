"""What each process of `parallel.py` does: build its part of a pipeline of random weights, measure, compare.

The weights are drawn whole on every rank, from one seed, and read as loading reads a file.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measure import synchronise
from random_parts import PROMPT, WORKLOADS, assembled, fast_vae, make_fast_, random_prompts
from silence import silenced
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.checkpoint.files import Checkpoint, Region
from kandinsky.checkpoint.gpu_copy import MappedSource
from kandinsky.checkpoint.random_weights import SIZES, random_dit, random_vae
from kandinsky.loading.components import load_dit
from kandinsky.loading.devices import default_dtype
from kandinsky.model.attention import BACKENDS, Attention, torch_sdpa
from kandinsky.model.dit import DiT
from kandinsky.parallel.apply import Parallelism, parallelism_of
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks, open_group
from kandinsky.parallel.strips import strips_of
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.request import request_of
from kandinsky.text.encoder import TextEncoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.rows import all_rows
from kandinsky.video_shape import VideoShape

LOG = "figures.jsonl"


class InMemory(Checkpoint):
    """Tensors on the host, read as from a file."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.path, self.state = Path("random weights"), state
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}

    def tensor(self, name: str, device: torch.device, regions: Sequence[Region] | None = None) -> Tensor:
        whole = self.state[name].to(device)
        return whole if regions is None else torch.cat([whole[region] for region in regions])

    def source(self, name: str) -> MappedSource:
        return MappedSource(self.state[name])


def random_part(size: str, parallelism: Parallelism, ranks: Ranks, device: torch.device) -> DiT:
    """A rank's part of a DiT that is the same whole one on every rank."""
    dtype = default_dtype(device)
    whole = random_dit(SIZES[size].dit, torch.Generator(device).manual_seed(0), dtype=dtype)
    checkpoint = InMemory({name: value.cpu().contiguous() for name, value in whole.state_dict().items()})
    del whole
    return load_dit(
        checkpoint,
        device=device,
        dtype=dtype,
        build=lambda config: parallelism.build(config, ranks),
        shard=parallelism.shard(ranks),
    )


def seconds(run: Callable[[], object], ranks: Ranks, device: torch.device, *, repeats: int = 3) -> float:
    """Median seconds of the slowest rank, after a run to warm up; all begin together."""
    times = []
    for _ in range(repeats + 1):
        synchronise(device)
        if ranks.size > 1:
            dist.barrier()
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - start)
    everyone = ranks.gather(torch.tensor(times[1:], device=device, dtype=torch.float32))
    return statistics.median(everyone.max(0).values.tolist())


def measure_video(pipe: Kandinsky4T2VPipeline, shape: VideoShape, folder: Path, name: str) -> dict[str, Any]:
    """Figures of one mode and precision; `name` is the precision's."""
    ranks, dit, device = pipe.ranks, pipe.dit, pipe.dit.device
    vae = pipe.vae
    assert vae is not None
    text = pipe.encode(PROMPT)
    context = dit.prepare(text, pipe.parts.modulation, dit.layout(shape.latent_grid, len(text)))
    latents = torch.randn(*shape.latent_grid, dit.config.in_visual_dim, device=device, dtype=dit.dtype)
    figures: dict[str, Any] = {"step": seconds(lambda: dit.step(latents, context, 1), ranks, device)}
    if ranks.size > 1:
        figures["step_silent"] = seconds(silenced(lambda: dit.step(latents, context, 1), dit), ranks, device)
    final = pipe.sample(text, shape, seed=1)
    figures["decode"] = seconds(lambda: list(vae.decode(final)), ranks, device)
    if ranks.is_main:
        figures["difference"] = compare(final, folder / f"{name}.pt", alone=ranks.size == 1)
    if ranks.size == 1:
        figures["attentions"] = differences_of_attentions(pipe, text, shape)
    figures |= request_figures(pipe, shape, folder)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        list(vae.decode(pipe.sample(text, shape, seed=1)))
        peaks = ranks.gather(torch.tensor(torch.cuda.max_memory_allocated(device) / 2**30, device=device))
        figures["peak_gib"] = [round(peak, 2) for peak in peaks.tolist()]
    return figures


def request_figures(pipe: Kandinsky4T2VPipeline, shape: VideoShape, folder: Path) -> dict[str, Any]:
    """The better one of two requests; nothing on ranks that do not write."""
    request = request_of(
        PROMPT, folder / "v.mp4", 1, shape.seconds, shape.width, shape.height, seed=1, model_set=pipe.model_set
    )
    results = [result for _ in range(2) for result in pipe.run(request)]
    if not results:
        return {}
    best = min(results, key=lambda result: result.timings["total"])
    return {"request": best.timings["total"], "timings": dict(best.timings)}


def compare(latents: Tensor, path: Path, *, alone: bool) -> float | None:
    """Relative difference from what one GPU made, which leaves its own; None if it was not asked to make any."""
    if alone:
        torch.save(latents.cpu(), path)
    if not path.exists():
        return None
    expected = torch.load(path)
    return ((latents.cpu() - expected).norm() / expected.norm()).item()


def restricted(kernel: SDPBackend) -> Attention:
    """scaled_dot_product_attention with one of PyTorch's kernels."""

    def attend(qkv: Tensor) -> Tensor:
        with sdpa_kernel(kernel):
            return torch_sdpa(qkv)

    return Attention(kernel.name, attend)


def differences_of_attentions(pipe: Kandinsky4T2VPipeline, text: Tensor, shape: VideoShape) -> dict[str, float]:
    """Relative difference of the final latents between each two attention backends, on the same GPU.

    `cudnn` and `bounded` are the library's; `flash` and `efficient` the other two kernels that PyTorch has.
    """
    dit, made = pipe.dit, {}
    backends = {
        "cudnn": BACKENDS["cudnn"],
        "bounded": BACKENDS["bounded"],
        "flash": restricted(SDPBackend.FLASH_ATTENTION),
        "efficient": restricted(SDPBackend.EFFICIENT_ATTENTION),
    }
    chosen = dit.attention
    for name, backend in backends.items() if dit.device.type == "cuda" else ():
        dit.attention = backend
        made[name] = pipe.sample(text, shape, seed=1)
    dit.attention = chosen
    pairs = combinations(made, 2)
    return {f"{one}, {other}": ((made[one] - made[other]).norm() / made[other].norm()).item() for one, other in pairs}


def shared_parts(
    size: str, ranks: Ranks, device: torch.device
) -> tuple[TextEncoder | None, VideoAutoencoder, Messenger | None]:
    """What does not depend on the mode: the text encoder on the main rank, the VAE, and who carries messages."""
    messenger = Messenger(ranks, device) if ranks.size > 1 else None
    generator = torch.Generator(device).manual_seed(1)
    drawn = random_vae(SIZES[size].vae, generator, dtype=default_dtype(device))
    rows_of = all_rows if messenger is None else strips_of(messenger)
    vae = VideoAutoencoder.from_diffusers(drawn, rows_of=rows_of)
    return random_prompts(size, generator) if ranks.is_main else None, vae, messenger


@torch.inference_mode()
def work(
    folder: Path,
    device: torch.device,
    *,
    size: str,
    modes: Sequence[str],
    precisions: Sequence[str],
    seconds: int,
) -> None:
    """What each process does; the main one adds its figures to the log."""
    ranks = open_group(device)
    text_encoder, vae, messenger = shared_parts(size, ranks, device)
    workload = WORKLOADS[size]
    for mode in modes if ranks.size > 1 else ("none",):
        parallelism = parallelism_of(mode)
        dit = random_part(size, parallelism, ranks, device)
        pipe = Kandinsky4T2VPipeline(assembled(dit, text_encoder, vae, workload.model_set, ranks))
        if messenger is not None:
            parallelism.apply_(dit, messenger)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        for precision in precisions:
            if precision == "fast":
                make_fast_(dit, ranks)
                pipe = Kandinsky4T2VPipeline(replace(pipe.parts, vae=fast_vae(vae, messenger)))
            figures = measure_video(pipe, workload.shape(seconds), folder, precision)
            if ranks.is_main:
                write({"gpus": ranks.size, "mode": mode, "precision": precision, **figures}, folder / LOG)
        del pipe, dit


def write(row: Mapping[str, Any], log: Path) -> None:
    line = json.dumps(row, allow_nan=False)
    print(line, flush=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
