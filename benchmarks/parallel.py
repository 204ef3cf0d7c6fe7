"""Several GPUs against one: DiT step, VAE decode, whole request and memory, for tensor and sequence parallelism.

    python benchmarks/parallel.py [--gpus 1 2 4 8] [--json docs/parallel.json]
    python benchmarks/parallel.py --plot docs/parallel.json docs/parallel.png

Random weights of the published sizes, the same on every GPU, are made on the spot. For each number of GPUs (by default
1, 2, 4, 8 as far as there are any) one group of processes measures both modes in exact and in fast precision, and
compares its latents with those of one GPU. "Exposed" is what the messages cost: a step against the same step with all
messages left out. The plot needs matplotlib.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.gpu_copy import MappedSource
from kandinsky.checkpoint.random_weights import SCHEDULER, SIZES, random_dit, random_text_encoder, random_vae
from kandinsky.config import FLASH_512
from kandinsky.loading.assemble import configure_
from kandinsky.loading.components import load_dit
from kandinsky.loading.devices import default_dtype
from kandinsky.model.attention import BACKENDS, Attention, torch_sdpa
from kandinsky.model.dit import DiT
from kandinsky.model.operations import fused
from kandinsky.parallel import apply as parallel
from kandinsky.parallel.apply import builder
from kandinsky.parallel.boxes import Box, Messenger
from kandinsky.parallel.ranks import Ranks, local_rank, open_group
from kandinsky.parallel.tensor import Sum, shard_for
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.sampler import Schedule
from kandinsky.text.encoder import TextEncoder
from kandinsky.text.t5 import T5Encoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_shape import VideoShape

PROMPT = "Several giant wooly mammoths approach treading through a snowy meadow."
TOKENIZER = Path(__file__).parents[1] / "tests" / "weights" / "tokenizer"
LOG = "figures.jsonl"
SIZE = "full" if torch.cuda.is_available() else "tiny"
MODEL_SET = FLASH_512 if SIZE == "full" else replace(FLASH_512, sizes=((64, 96),))
"""Without a GPU the script only tries itself out, on tiny sizes."""


class InMemory(Checkpoint):
    """Tensors on the host, read as from a file."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.path, self.state = Path("random weights"), state
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}

    def tensor(self, name, device, regions=None):
        whole = self.state[name].to(device)
        return whole if regions is None else torch.cat([whole[region] for region in regions])

    def source(self, name):
        return MappedSource(self.state[name])


class Silence:
    """In the place of a messenger: nothing is sent, so that a step is its arithmetic alone."""

    def __init__(self, messenger: Messenger):
        self.ranks, self.real = messenger.ranks, messenger

    def box(self, name: str, size: int):
        """The real box, without its messages."""
        return SilentBox(self.real.box(name, size))


class SilentBox:
    def __init__(self, box: Box):
        self.size, self.view = box.size, box.view

    def exchange(self, sends, receives, *, channel=0):  # noqa: ARG002
        return lambda: None


class SilentSum(Sum):
    def begin(self, start, stop):
        pass


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], ranks: Ranks, device: torch.device, *, repeats: int = 3) -> float:
    """Median seconds of the slowest rank; all begin together."""
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


def silenced(run: Callable[[], object], dit: DiT) -> Callable[[], None]:
    """`run` with all messages of the blocks left out."""
    holders = [module for module in dit.modules() if hasattr(module, "messenger")]

    def quiet() -> None:
        real = holders[0].messenger
        for module in holders:
            module.messenger = Silence(real)
        with mock.patch.object(parallel, "Sum", SilentSum):
            run()
        for module in holders:
            module.messenger = real

    return quiet


def build(mode: str, ranks: Ranks, device: torch.device, parts: tuple) -> Kandinsky4T2VPipeline:
    """A pipeline of random weights, as the factory makes one from files."""
    sizes, (text_encoder, vae, messenger) = SIZES[SIZE], parts
    whole = random_dit(sizes.dit, torch.Generator(device).manual_seed(0))
    checkpoint = InMemory({name: value.cpu().contiguous() for name, value in whole.state_dict().items()})
    del whole
    place = {"device": device, "dtype": default_dtype(device)}
    dit = load_dit(checkpoint, build=builder(mode, ranks), shard=shard_for(mode, ranks), **place)
    schedule = Schedule.from_config(SCHEDULER)
    pipe = Kandinsky4T2VPipeline(dit, text_encoder, vae, schedule, model_set=MODEL_SET, ranks=ranks, progress=False)
    operations = fused() if device.type == "cuda" else dit.operations
    configure_(dit, operations, attention="auto", ranks=ranks)
    if messenger is not None:
        parallel.parallelise_(dit, mode, messenger)
    return pipe


def measure(pipe: Kandinsky4T2VPipeline, shape: VideoShape, folder: Path, name: str) -> dict:
    """Figures of one mode and precision."""
    ranks, dit, device = pipe.ranks, pipe.dit, pipe.dit.device
    text = pipe._encode(PROMPT)
    context = dit.prepare(text, pipe.modulation, dit.layout(shape.latent_grid, len(text)))
    latents = torch.randn(*shape.latent_grid, 16, device=device, dtype=dit.dtype)
    figures = {"step": seconds(lambda: dit.step(latents, context, 1), ranks, device)}
    if ranks.size > 1:
        figures["step_silent"] = seconds(silenced(lambda: dit.step(latents, context, 1), dit), ranks, device)
    final = pipe.sample_latents(text, shape, seed=1)
    assert pipe.vae is not None
    figures["decode"] = seconds(lambda: list(pipe.vae.decode(final)), ranks, device)
    figures["difference"] = compare(final, folder / f"{name}.pt") if ranks.is_main else 0.0
    if ranks.size == 1:
        figures["attentions"] = differences_of_attentions(pipe, text, shape)
    call = {"time_length": shape.seconds, "width": shape.width, "height": shape.height, "seed": 1}
    results = [pipe(PROMPT, folder / "v.mp4", **call) for _ in range(2)]
    if ranks.is_main:
        best = min(results, key=lambda result: result.timings["total"])
        figures |= {"request": best.timings["total"], "timings": best.timings}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        list(pipe.vae.decode(pipe.sample_latents(text, shape, seed=1)))
        peaks = ranks.gather(torch.tensor(torch.cuda.max_memory_allocated(device) / 2**30, device=device))
        figures["peak_gib"] = [round(peak, 2) for peak in peaks.tolist()]
    return figures


def compare(latents: Tensor, path: Path) -> float:
    """Relative difference from what one GPU made; one GPU leaves its own."""
    if not path.exists():
        torch.save(latents.cpu(), path)
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
        made[name] = pipe.sample_latents(text, shape, seed=1)
    dit.attention = chosen
    pairs = combinations(made, 2)
    return {f"{one}, {other}": ((made[one] - made[other]).norm() / made[other].norm()).item() for one, other in pairs}


@torch.inference_mode()
def work(folder: Path, arguments: argparse.Namespace) -> None:
    """What each process does; the main one adds its figures to the log."""
    from transformers import T5Tokenizer

    device = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    ranks = open_group(device)
    messenger = Messenger(ranks, device) if ranks.size > 1 else None
    generator, dtype = torch.Generator(device).manual_seed(1), default_dtype(device)
    vae = VideoAutoencoder.from_diffusers(random_vae(SIZES[SIZE].vae, generator, dtype=dtype), messenger=messenger)
    text_encoder = None
    if ranks.is_main:
        tokenizer = T5Tokenizer.from_pretrained(TOKENIZER)
        t5 = T5Encoder.from_transformers(random_text_encoder(SIZES[SIZE].t5, generator, dtype=dtype))
        text_encoder = TextEncoder(t5, tokenizer, text_tokens=224)
    width, height = (672, 384) if SIZE == "full" else (96, 64)
    shape = VideoShape.from_request(arguments.seconds, width, height, model_set=MODEL_SET)
    for mode in arguments.modes if ranks.size > 1 else ("none",):
        pipe = build(mode, ranks, device, (text_encoder, vae, messenger))
        if device.type == "cuda":
            torch.cuda.empty_cache()
        for precision in arguments.precisions if device.type == "cuda" else ("exact",):
            if precision == "fast":
                from kandinsky.model.float8 import quantise_blocks_

                quantise_blocks_(pipe.dit)
                pipe.dit.operations = fused(quantise=True)
            figures = measure(pipe, shape, folder, precision)
            if ranks.is_main:
                row = {"gpus": ranks.size, "mode": mode, "precision": precision, **figures}
                print(json.dumps(row), flush=True)
                with (folder / LOG).open("a") as log:
                    log.write(json.dumps(row) + "\n")
        del pipe


def launch(gpus: int, folder: Path) -> None:
    """One group of processes."""
    config = LaunchConfig(1, 1, gpus, run_id=f"gpus{gpus}", rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    elastic_launch(config, sys.executable)(__file__, *sys.argv[1:], "--work", str(folder))


def table(rows: list[dict]) -> str:
    """Figures as Markdown, with the speed-up over one GPU at the same precision."""
    lines = ["| GPUs | mode | precision | step | exposed | VAE | request | latents differ | peak GiB per rank |"]
    lines.append("|" + "---|" * 9)
    alone = {row["precision"]: row for row in rows if row["gpus"] == 1}
    for row in rows:
        one = alone.get(row["precision"], row)

        def cell(key: str, row: dict = row, one: dict = one) -> str:
            return f"{row[key] * 1e3:,.0f} ms ({one[key] / row[key]:.2f}x)"

        exposed = f"{1 - row['step_silent'] / row['step']:.1%}" if "step_silent" in row else ""
        peaks = ", ".join(map(str, row.get("peak_gib", [])))
        lines.append(
            f"| {row['gpus']} | {row['mode']} | {row['precision']} | {cell('step')} | {exposed} | {cell('decode')} "
            f"| {cell('request')} | {row['difference']:.4f} | {peaks} |"
        )
    for precision, row in alone.items():
        lines.append(f"\nOne GPU, {precision}, latents of two attention backends differ by: {row['attentions']}")
    return "\n".join(lines)


def plot(source: Path, target: Path) -> None:
    """Speed-up of the whole request over GPUs."""
    from matplotlib import pyplot as plt

    rows = json.loads(source.read_text())["rows"]
    figure, axes = plt.subplots(figsize=(6, 4))
    most = max(row["gpus"] for row in rows)
    axes.plot([1, most], [1, most], color="0.7", label="as many times as GPUs")
    for precision, style in (("exact", "-"), ("fast", "--")):
        one = next(row for row in rows if row["gpus"] == 1 and row["precision"] == precision)
        for mode in ("tensor", "sequence"):
            some = [one, *(row for row in rows if (row["mode"], row["precision"]) == (mode, precision))]
            speedups = [one["request"] / row["request"] for row in some]
            axes.plot([row["gpus"] for row in some], speedups, style, marker="o", label=f"{mode}, {precision}")
    axes.set(xlabel="GPUs", ylabel="prompt to mp4, times one GPU", xticks=sorted({row["gpus"] for row in rows}))
    axes.legend()
    figure.savefig(target, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="*", help="numbers of GPUs (default: 1, 2, 4, 8)")
    parser.add_argument("--modes", nargs="*", default=["tensor", "sequence"], help="default: both")
    parser.add_argument("--precisions", nargs="*", default=["exact", "fast"], help="default: both")
    parser.add_argument("--seconds", type=int, default=12, help="of video")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, nargs=2, metavar=("JSON", "PNG"), help="draw figures measured before")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plot:
        plot(*arguments.plot)
        return
    if arguments.work:
        work(arguments.work, arguments)
        return
    there = torch.cuda.device_count() or 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gpus in arguments.gpus or [n for n in (1, 2, 4, 8) if n <= there]:
            launch(gpus, folder)
        rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    print(table(rows))
    result = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
