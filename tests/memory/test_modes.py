"""Where weights are while they are not used changes nothing in the result."""

import copy
import dataclasses
import functools
import itertools
import shutil

import pytest
import torch
from helpers import SMALL, TINY
from safetensors.torch import save_file

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.config import FLASH_512
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.components import load_text_encoder
from kandinsky.memory.modes import BLOCKS, DISK, RESIDENT, STAGED, home_of_dit, home_of_t5, modes_of, modulation_on
from kandinsky.model.layers import ModulationLayer
from kandinsky.model.precision import EXACT, PRECISIONS
from kandinsky.model.quantised import quantise_weight
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.sampler import Schedule
from kandinsky.text.encoder import TextEncoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_shape import VideoShape

CPU = torch.device("cpu")
CUDA = dict.fromkeys(("dit", "vae", "text_embedder"), torch.device("cuda", 0))
STREAMED = (STAGED, BLOCKS, DISK)


def in_float32(name, folder):
    """A file of the tiny weights in what a CPU computes with."""
    stored = open_checkpoint(TINY / name)
    weights = {key: stored.tensor(key, CPU).float().contiguous() for key in stored.shapes}
    save_file(weights, folder / "model.safetensors")
    return open_checkpoint(folder / "model.safetensors")


@pytest.mark.parametrize("mode", STREAMED)
def test_dit_is_equal_to_the_bit(pipe, mode, tmp_path):
    text, shape = torch.randn(224, 64), VideoShape.from_request(1, 64, 64, model_set=SMALL)
    expected = pipe.sample(text, shape, seed=1)
    dit = copy.deepcopy(pipe.dit)
    home = home_of_dit(dit, CPU, mode=mode, precision=EXACT, checkpoint=in_float32(FLASH_512.dit_file, tmp_path))
    other = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, dit=dit, dit_home=home))
    assert not other.is_resident
    assert torch.equal(other.sample(text, shape, seed=1), expected)
    assert torch.equal(other.sample(text, shape, seed=1), expected)


@pytest.mark.parametrize("mode", STREAMED)
def test_text_encoder_is_equal_to_the_bit(pipe, mode, tmp_path):
    settings = {"device": CPU, "dtype": torch.float32, "text_tokens": 224}
    loaded = load_text_encoder(TINY / "text_encoder", TINY / "tokenizer", **settings)
    home = home_of_t5(loaded.model, CPU, mode=mode, checkpoint=in_float32("text_encoder", tmp_path))
    encoder = TextEncoder(loaded.model, loaded.backend, text_tokens=224, home=home)
    assert not encoder.is_resident
    for prompt in ("a cat", "a dog"):
        assert torch.equal(encoder(prompt), pipe.text_encoder(prompt))


def test_staged_vae_decodes_and_encodes_the_same(pipe):
    staged = VideoAutoencoder.from_diffusers(copy.deepcopy(pipe.vae.autoencoder), staged=True)
    latents = torch.randn(3, 8, 8, 16)
    frames = torch.cat(list(pipe.vae.decode(latents)))
    assert torch.equal(torch.cat(list(staged.decode(latents))), frames)
    assert torch.equal(staged.encode(frames), pipe.vae.encode(frames))


def test_modulation_layers_are_put_back(pipe):
    dit = copy.deepcopy(pipe.dit)
    places = [layer.out_layer.weight.data_ptr() for layer in dit.modules() if isinstance(layer, ModulationLayer)]
    times = torch.tensor(Schedule((999, 499), (0.0, 0.5)).timesteps)[:, None]
    with torch.inference_mode():
        expected = pipe.dit.modulation(times)
        with modulation_on(dit, CPU):
            found = dit.modulation(times)
    assert torch.equal(found.blocks, expected.blocks)
    assert places == [
        layer.out_layer.weight.data_ptr() for layer in dit.modules() if isinstance(layer, ModulationLayer)
    ]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in dit.modules())


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ("host", r"dit is 'host'; allowed are 'resident', 'staged', 'blocks', 'disk', and 'auto'"),
        (
            {"unet": "staged"},
            r"memory=\{'unet': 'staged'\}: allowed are 'auto', .* mapping with keys dit, vae, text_emb",
        ),
        ({"vae": "auto"}, r"vae is 'auto'; allowed are 'resident'"),
        (3, "memory=3: allowed are 'auto'"),
    ],
)
def test_wrong_memory(memory, message):
    with pytest.raises(ValueError, match=message):
        modes_of(memory, CUDA)


def test_a_cpu_has_nothing_to_stage():
    with pytest.raises(ValueError, match=r"dit is 'blocks', but runs on cpu; allowed there: 'resident'"):
        get_T2V_pipeline("cpu", cache_dir=TINY, memory="blocks")
    assert modes_of("auto", CUDA) is None
    expected = {"dit": BLOCKS, "vae": RESIDENT, "text_embedder": RESIDENT}
    assert modes_of({"dit": "blocks"}, CUDA) == expected


def gpu_outputs(memory, precision="exact", folder=TINY):
    pipe = get_T2V_pipeline(
        "cuda:0", cache_dir=folder, memory=memory, precision=precision, attention="bounded", progress=False
    )
    shape = VideoShape.from_request(1, 672, 384)
    found = []
    for prompt in ("a cat", "a dog"):
        text = pipe.text_encoder(prompt)
        latents = pipe.sample(text, shape, seed=1)
        frames = torch.cat([chunk.clone() for chunk in pipe.vae.frames(latents)])
        found += [text.cpu(), latents.cpu(), frames.cpu()]
    return found


@functools.cache
def resident_outputs(precision):
    return gpu_outputs("resident", precision)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("memory", "precision"),
    [
        *itertools.product(["staged", "blocks", {"text_embedder": "blocks"}, "auto"], ["exact", "fast"]),
        ("disk", "exact"),
        ({"text_embedder": "disk"}, "fast"),
    ],
)
def test_every_mode_is_equal_to_the_bit_on_a_gpu(memory, precision):
    found = gpu_outputs(memory, precision)
    assert all(torch.equal(a, b) for a, b in zip(found, resident_outputs(precision), strict=True))


@pytest.mark.gpu
def test_float8_weights_are_those_of_a_cpu():
    weight = torch.randn(3000, 1001, generator=torch.Generator().manual_seed(0)).bfloat16()
    here, there = quantise_weight(weight), quantise_weight(weight.cuda())
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("memory", ["resident", "blocks", "disk"])
def test_converted_weights_are_equal_to_the_bit_on_a_gpu(memory, tmp_path):
    from kandinsky.checkpoint.convert import convert

    shutil.copytree(TINY, tmp_path / "w")
    for precision in PRECISIONS:
        for device in (CPU, torch.device("cuda", 0)):
            convert(tmp_path / "w", precision=PRECISIONS[precision], device=device, progress=False)
            found = gpu_outputs(memory, precision, tmp_path / "w")
            assert all(torch.equal(a, b) for a, b in zip(found, resident_outputs(precision), strict=True))
