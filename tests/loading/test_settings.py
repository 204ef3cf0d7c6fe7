"""Arguments of `get_T2V_pipeline`: each wrong one is refused at once, before any weight is read."""

import dataclasses
import types

import pytest
import torch
from helpers import TINY

from kandinsky.config import FLASH_512, PUBLISHED_DIT
from kandinsky.errors import CheckpointError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.settings import _revisions, settings_of
from kandinsky.memory.modes import RESIDENT
from kandinsky.model.precision import EXACT
from kandinsky.parallel.apply import TENSOR

DEVICES = dict.fromkeys(("dit", "vae", "text_embedder"), "cpu")
WRONG = {
    "empty device_map": ({"device_map": {}}, r"device_map=\{\}: missing key 'dit'"),
    "unknown key": ({"device_map": {**DEVICES, "unet": "cpu"}}, r"unknown key 'unet'; the keys are dit, vae"),
    "missing key": ({"device_map": {"dit": "cpu", "vae": "cpu"}}, r"missing key 'text_embedder'"),
    "not a device": ({"device_map": "gpu"}, r"device_map='gpu' is not a device; allowed here: cpu"),
    "empty string": ({"device_map": ""}, r"device_map='' is not a device"),
    "not a mapping": ({"device_map": None}, r"device_map=None: allowed is a device, or a mapping"),
    "no such GPU": (
        {"device_map": "cuda:99"},
        r"device_map='cuda:99' does not exist on this machine; allowed here: cpu",
    ),
    "no such GPU for one": (
        {"device_map": {**DEVICES, "vae": "cuda:99"}},
        r"device_map\['vae'\]='cuda:99' does not exist",
    ),
    "meta": ({"device_map": "meta"}, r"device_map='meta' is not a device"),
    "resolution": ({"resolution": 1024}, r"resolution=1024: allowed is 512"),
    "attention": ({"attention": "fastest"}, r"attention='fastest': allowed are 'auto'"),
    "dtype": ({"dtype": torch.int8}, r"dtype=torch.int8: allowed are None, torch.float32, torch.bfloat16"),
    "precision": ({"precision": "half"}, r"precision='half': allowed are 'exact', 'fast'"),
    "float8 on a CPU": ({"precision": "fast"}, r"precision='fast' needs a CUDA device of compute capability 8\.9"),
    "kernels": ({"kernels": "cuda"}, r"kernels='cuda': allowed are 'auto', 'triton', 'torch'"),
    "triton on a CPU": ({"kernels": "triton"}, r"kernels='triton' needs Triton and a CUDA device, this is cpu"),
    "prompt": ({"prompt": ["a", "b"]}, r"prompt=\['a', 'b'\]: allowed are None and one text"),
    "revision": ({"revision": {"some/repo": "main"}}, r"revision names 'some/repo'; the repositories are ai-forever"),
}


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory):
    """A folder of weights of which every file would be refused if it was opened."""
    folder = tmp_path_factory.mktemp("unreadable")
    for path in TINY.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(TINY)).parent.mkdir(exist_ok=True)
            (folder / path.relative_to(TINY)).write_bytes(b"")
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(case, unreadable):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        settings_of(**{"device_map": "cpu", "cache_dir": unreadable, **arguments})


def test_device_map_is_left_as_it_is():
    given = {**DEVICES, "vae": torch.device("cpu")}
    before = dict(given)
    get_T2V_pipeline(types.MappingProxyType(given), cache_dir=TINY, progress=False)
    assert given == before


def test_modules_are_where_the_map_says():
    pipe = get_T2V_pipeline(DEVICES, cache_dir=TINY, progress=False, dtype=torch.bfloat16)
    for module in (pipe.dit, pipe.vae.autoencoder, pipe.text_encoder.model):
        assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}
        assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_layout_does_not_change_bits():
    other = get_T2V_pipeline(DEVICES, cache_dir=TINY, progress=False)
    call = {"time_length": 0, "width": 512, "height": 512, "seed": 3, "output_type": "latent"}
    pipes = (other, get_T2V_pipeline("cpu", cache_dir=TINY, progress=False))
    first, second = (one("a cat", **call) for one in pipes)
    assert torch.equal(first, second)


def test_float32_on_a_cpu_by_default(pipe):
    assert pipe.dit.dtype == pipe.vae.autoencoder.dtype == pipe.text_encoder.model.dtype == torch.float32


def write(path, text):
    path.write_text(text)
    return path


def test_conf_file_gives_paths_and_explicit_ones_win(tmp_path):
    conf = write(
        tmp_path / "conf.yaml",
        f"vae: {{checkpoint_path: {TINY / 'vae'}}}\n"
        f"text_embedder: {{tokens_lenght: 100, params: {{checkpoint_path: {TINY / 'text_encoder'}, "
        f"tokenizer_path: {TINY / 'tokenizer'}}}}}\n"
        f"dit: {{scheduler: {TINY / 'scheduler'}, checkpoint_path: /nowhere}}\nresolution: 512\n",
    )
    dit = TINY / "kandinsky4_distil_512.pt"
    settings = settings_of("cpu", cache_dir=tmp_path / "empty", dit_path=dit, conf_path=conf)
    assert settings.paths.vae == TINY / "vae"
    assert settings.paths.dit == settings.checkpoint.path == dit
    assert settings.model_set.text_tokens == 100


CONF_ERRORS = {
    "not yaml": ("vae: [", "is not YAML"),
    "unknown key": ("vae: {path: x}", r"unknown key 'path' in vae; allowed: checkpoint_path"),
    "unknown top": ("unet: {}", r"unknown key 'unet' in the top level"),
    "not a mapping": ("vae: 3", "vae must be a mapping"),
    "resolution": ("resolution: 256", "resolution=256: allowed is 512"),
    "not a number": ("resolution: big", "resolution='big' must be a whole number"),
    "not a path": ("dit: {checkpoint_path: 3}", "dit.checkpoint_path=3 must be a path"),
}


@pytest.mark.parametrize("case", CONF_ERRORS)
def test_wrong_conf_file(case, tmp_path, unreadable):
    text, message = CONF_ERRORS[case]
    with pytest.raises(ValueError, match=message):
        settings_of("cpu", cache_dir=unreadable, conf_path=write(tmp_path / "conf.yaml", text))


def test_one_revision_is_that_of_every_repository():
    repositories = (FLASH_512.dit_repository, FLASH_512.components_repository)
    assert _revisions("main", FLASH_512) == dict.fromkeys(repositories, "main")
    assert _revisions({repositories[1]: "v2"}, FLASH_512) == {repositories[1]: "v2"}
    assert _revisions(None, FLASH_512) == {}
    with pytest.raises(ValueError, match="revision=3: allowed are a text for all repositories, a mapping, and None"):
        _revisions(3, FLASH_512)


def test_settings_are_frozen_values():
    settings = settings_of("cpu", cache_dir=TINY)
    assert settings.precision is EXACT
    assert settings.parallelism is TENSOR
    assert set(settings.modes.values()) == {RESIDENT}
    assert settings.attention is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.progress = False


def test_missing_conf_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        get_T2V_pipeline("cpu", cache_dir=TINY, conf_path=tmp_path / "conf.yaml")


def test_conf_file_with_other_sizes(tmp_path):
    conf = write(tmp_path / "conf.yaml", f"dit: {{params: {{model_dim: {PUBLISHED_DIT.model_dim}}}}}")
    with pytest.raises(ValueError, match="conf_path gives model_dim=3072, the DiT checkpoint has 128"):
        get_T2V_pipeline("cpu", cache_dir=TINY, conf_path=conf, progress=False)


def test_scheduler_that_is_not_supported(tmp_path):
    wrong = write(tmp_path / "scheduler_config.json", '{"prediction_type": "epsilon"}')
    with pytest.raises(CheckpointError, match="prediction_type='epsilon'"):
        get_T2V_pipeline("cpu", cache_dir=TINY, scheduler_path=wrong, progress=False)
