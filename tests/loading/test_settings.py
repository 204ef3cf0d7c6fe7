"""Arguments of a load to settings: each wrong one is refused at once, before any weight is read."""

import dataclasses

import huggingface_hub
import pytest
import torch
from helpers import SMALL, TINY, own_weights

from kandinsky.config import FLASH_512, MODULES, PUBLISHED_DIT
from kandinsky.errors import CheckpointError
from kandinsky.loading.settings import _check_dit, read_schedule, settings_of
from kandinsky.memory.modes import RESIDENT
from kandinsky.model.attention import TORCH
from kandinsky.model.precision import EXACT
from kandinsky.parallel.apply import SEQUENCE, TENSOR
from kandinsky.parallel.ranks import Ranks

DEVICES = dict.fromkeys(MODULES, "cpu")
WRONG = {
    "device_map": ({"device_map": {}}, r"device_map=\{\}: missing key 'dit'"),
    "resolution": ({"resolution": 1024}, r"resolution=1024: allowed is 512"),
    "attention": ({"attention": "fastest"}, r"attention='fastest': allowed are 'auto'"),
    "attention on a CPU": ({"attention": "cudnn"}, r"attention='cudnn' needs bfloat16 on a CUDA device"),
    "prompt_cache": ({"prompt_cache": 3}, "prompt_cache=3: allowed is a path of text"),
    "dtype": ({"dtype": torch.int8}, r"dtype=torch.int8: allowed are None, torch.float32, torch.bfloat16"),
    "precision": ({"precision": "half"}, r"precision='half': allowed are 'exact', 'fast'"),
    "float8 on a CPU": ({"precision": "fast"}, r"precision='fast' needs a CUDA device of compute capability 8\.9"),
    "kernels": ({"kernels": "cuda"}, r"kernels='cuda': allowed are 'auto', 'triton', 'torch'"),
    "triton on a CPU": ({"kernels": "triton"}, r"kernels='triton': Triton's kernels need a CUDA device, this is cpu"),
    "memory": ({"memory": "host"}, r"dit is 'host'; allowed are 'resident', 'staged', 'blocks', 'disk', and 'auto'"),
    "parallelism": ({"parallelism": "pipeline"}, r"parallelism='pipeline': allowed are 'tensor', 'sequence', 'none'"),
    "prompt": ({"prompt": ["a", "b"]}, r"prompt=\['a', 'b'\]: allowed are None and one text"),
    "cache_dir": ({"cache_dir": 3}, "cache_dir=3: allowed is a path of text"),
    "vae_path": ({"vae_path": b"vae"}, "vae_path=b'vae': allowed is a path of text"),
    "revision": ({"revision": {"some/repo": "main"}}, r"revision names 'some/repo'; the repositories are ai-forever"),
    "revisions": ({"revision": 3}, "revision=3: allowed are a text for all repositories, a mapping, and None"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(case, unreadable):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        settings_of(**{"device_map": "cpu", "cache_dir": unreadable, **arguments})


def test_files_are_looked_at_when_the_arguments_are_right(unreadable):
    """So that the test above can fail."""
    with pytest.raises(CheckpointError, match="is empty"):
        settings_of("cpu", cache_dir=unreadable, local_files_only=True)


def test_settings_are_frozen_values():
    settings = settings_of("cpu", cache_dir=TINY)
    assert settings.precision is EXACT
    assert settings.parallelism is TENSOR
    assert settings.attention is None
    assert set(settings.modes.values()) == {RESIDENT}
    assert set(settings.dtypes.values()) == {torch.float32}
    for field in dataclasses.fields(settings):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field.name, None)


def test_every_argument_becomes_a_value(tmp_path):
    settings = settings_of(
        DEVICES,
        cache_dir=TINY,
        attention="torch",
        kernels="torch",
        vae_memory_saving=True,
        text_encoder_int8=True,
        prompt_cache=str(tmp_path / "cache"),
        prompt="a cat",
        dtype=torch.bfloat16,
        parallelism="sequence",
        distributed=False,
        progress=False,
    )
    assert settings.attention is TORCH
    assert settings.operations.name == "torch"
    assert settings.parallelism is SEQUENCE
    assert (settings.memory_saving, settings.text_encoder_int8) == (True, True)
    assert (settings.prompt_cache, settings.prompt) == (tmp_path / "cache", "a cat")
    assert set(settings.dtypes.values()) == {torch.bfloat16}
    assert (settings.distributed, settings.progress) == (False, False)
    assert list(tmp_path.iterdir()) == []


def test_the_model_set_is_the_one_that_the_weights_declare(small_weights, tmp_path):
    assert settings_of("cpu", cache_dir=TINY).model_set == FLASH_512
    assert settings_of("cpu", cache_dir=small_weights).model_set == SMALL
    elsewhere = own_weights(tmp_path / "w", dataclasses.replace(SMALL, max_seconds=2))
    given = settings_of("cpu", cache_dir=small_weights, dit_path=elsewhere / SMALL.dit_file)
    assert given.model_set.max_seconds == 2  # the DiT was trained for it
    assert given.paths.vae == small_weights / "vae"


def test_a_damaged_declaration(tmp_path):
    folder = own_weights(tmp_path / "w", SMALL)
    (folder / "model_set.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model_set\.json: allowed and needed are the keys"):
        settings_of("cpu", cache_dir=folder)


def test_weights_that_are_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights are missing in .*local_files_only=True forbids downloading"):
        settings_of("cpu", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(FileNotFoundError, match=r"vae not found at /nowhere"):
        settings_of("cpu", cache_dir=TINY, vae_path="/nowhere")


def written(path, text):
    path.write_text(text)
    return path


def test_conf_file_gives_paths_and_explicit_ones_win(tmp_path):
    conf = written(
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


def test_wrong_conf_file(tmp_path, unreadable):
    """What may be wrong in it is told by `tests/checkpoint/test_conf.py`."""
    for text, message in (("vae: [", "is not YAML"), ("resolution: 256", "resolution=256: allowed is 512")):
        with pytest.raises(ValueError, match=message):
            settings_of("cpu", cache_dir=unreadable, conf_path=written(tmp_path / "conf.yaml", text))
    with pytest.raises(FileNotFoundError, match="no such file"):
        settings_of("cpu", cache_dir=TINY, conf_path=tmp_path / "none.yaml")


def test_conf_file_with_other_sizes(tmp_path):
    conf = written(tmp_path / "conf.yaml", f"dit: {{params: {{model_dim: {PUBLISHED_DIT.model_dim}}}}}")
    with pytest.raises(ValueError, match="conf_path gives model_dim=3072, the DiT checkpoint has 128"):
        settings_of("cpu", cache_dir=TINY, conf_path=conf)


def test_a_revision_does_not_matter_where_files_stand():
    assert settings_of("cpu", cache_dir=TINY, revision="main").paths == settings_of("cpu", cache_dir=TINY).paths


def test_what_only_the_dit_tells():
    settings = settings_of("cpu", cache_dir=TINY)
    _check_dit(settings.checkpoint, settings)
    narrow = dataclasses.replace(settings, attention=dataclasses.replace(TORCH, name="narrow", head_dims=(32,)))
    with pytest.raises(ValueError, match="attention='narrow' takes no heads of 64 channels, which this DiT has"):
        _check_dit(settings.checkpoint, narrow)


def test_nothing_is_downloaded_for_wrong_arguments(monkeypatch, tmp_path):
    """Each that is refused for files that stand is refused before those of a repository are fetched."""
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    revision = (WRONG["revision"][0], "revision names 'some/repo'; the repositories are some/body")
    for arguments, message in (WRONG | {"revision": revision}).values():
        with pytest.raises(ValueError, match=message):
            settings_of(**{"device_map": "cpu", "cache_dir": tmp_path, **arguments}, repository="some/body")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_prompts_is_a_folder(tmp_path, unreadable):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"prompt_cache='.*file' is a file; allowed is a folder"):
        settings_of("cpu", cache_dir=unreadable, prompt_cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prediction_type": "epsilon"}', "prediction_type='epsilon': this sampler computes 'v_prediction' only"),
        ("{}", "beta_start"),
        ("[]", "is not a scheduler configuration"),
        ("{", "is not a scheduler configuration"),
    ],
)
def test_a_scheduler_that_is_not_supported(tmp_path, text, message):
    """It is a file of the weights that is another one: no wrong argument."""
    file = written(tmp_path / "scheduler_config.json", text)
    for path in (file, tmp_path):
        with pytest.raises(CheckpointError, match=rf"scheduler_config\.json.*{message}"):
            read_schedule(path)
    with pytest.raises(CheckpointError, match=message):
        settings_of("cpu", cache_dir=TINY, scheduler_path=file)


def test_the_published_schedule():
    assert read_schedule(TINY / "scheduler").timesteps == (999, 749, 499, 249)


@pytest.mark.usefixtures("launcher")
def test_processes_that_work_together_have_no_choice_of_memory():
    for memory in ("resident", "auto"):
        assert set(settings_of("cpu", cache_dir=TINY, memory=memory).modes.values()) == {RESIDENT}
    assert Ranks.current() == Ranks()  # nobody was waited for
