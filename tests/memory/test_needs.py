"""What a model set on disk needs, from headers and configurations alone."""

import shutil
from dataclasses import replace

import pytest
import torch
from fakes import PassedOn
from helpers import SMALL, TINY

from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.config import MODULES
from kandinsky.errors import CheckpointError
from kandinsky.memory.footprint import dit_component, t5_component
from kandinsky.memory.modes import BLOCKS, DISK
from kandinsky.memory.needs import check_in_file, needs_from
from kandinsky.model.precision import EXACT, FAST
from kandinsky.text.t5 import EMBEDDING
from kandinsky.video_shape import VideoShape

DIT = TINY / "kandinsky4_distil_512.pt"
PATHS = WeightPaths(DIT, TINY / "text_encoder", TINY / "tokenizer", TINY / "vae", TINY / "scheduler")
SHAPE = VideoShape.from_request(1, 96, 64, model_set=SMALL)
FLOAT32 = dict.fromkeys(MODULES, torch.float32)


class HeadersOnly(PassedOn):
    """A checkpoint whose weights nobody may read."""

    def tensor(self, name, *_):
        raise AssertionError(f"{name} was read")


@pytest.fixture(scope="module")
def checkpoint():
    return HeadersOnly(open_checkpoint(DIT))


def needs(checkpoint, names=FLOAT32, precision=EXACT, **settings):
    return needs_from(PATHS, names, text_tokens=224, dit=checkpoint, **settings)(SHAPE, precision)


def test_each_component_is_sized_by_its_own_checkpoint(checkpoint):
    found = needs(checkpoint)
    assert set(found.components) == set(MODULES)
    dit = dit_component(dit_config(checkpoint), SHAPE, text_tokens=224, dtype=torch.float32, quantise=False)
    assert replace(found.components["dit"], loading=0, in_file=True) == replace(dit, loading=0)
    shapes = open_checkpoint(PATHS.text_encoder).shapes
    t5 = t5_component(
        {name: shape for name, shape in shapes.items() if name not in EMBEDDING}, text_tokens=224, dtype=torch.float32
    )
    assert replace(found.components["text_embedder"], loading=0, in_file=True) == t5
    assert found.vae_saving.working < found.components["vae"].working


def test_the_checkpoint_is_opened_if_it_is_not_yet(checkpoint):
    opened = needs_from(PATHS, {"dit": torch.float32}, text_tokens=224)(SHAPE, EXACT)
    assert opened.components["dit"].blocks == needs(checkpoint).components["dit"].blocks


@pytest.mark.parametrize("names", [("dit",), ("vae",), ("text_embedder",), ("dit", "vae")])
def test_what_is_on_another_gpu_does_not_count(checkpoint, names):
    found = needs(checkpoint, dict.fromkeys(names, torch.float32))
    assert set(found.components) == set(names)
    assert (found.vae_saving is not None) == ("vae" in names)
    assert {name: found.components[name] for name in names} == {
        name: needs(checkpoint).components[name] for name in names
    }


def test_smaller_numbers_take_less(checkpoint):
    half = needs(checkpoint, dict.fromkeys(MODULES, torch.bfloat16)).components
    whole, int8 = needs(checkpoint).components, needs(checkpoint, text_encoder_int8=True).components
    for name in MODULES:
        assert 2 * sum(half[name].blocks) == pytest.approx(sum(whole[name].blocks), rel=0.01)
    assert sum(int8["text_embedder"].blocks) < sum(half["text_embedder"].blocks)
    fast = needs(checkpoint, precision=FAST).components["dit"]
    assert sum(fast.blocks) < sum(half["dit"].blocks)


def test_another_dtype_than_the_files_takes_more_while_loading(checkpoint):
    same, other = (needs(checkpoint, {"vae": dtype}).components["vae"] for dtype in (torch.float32, torch.bfloat16))
    stored = open_checkpoint(PATHS.vae).dtype("decoder.conv_in.conv.weight")
    differs = {torch.float32: same, torch.bfloat16: other}
    assert differs.pop(stored).loading == 0
    assert all(component.loading > 0 for component in differs.values())


def test_a_folder_that_is_no_vae(tmp_path):
    shutil.copytree(TINY / "vae", tmp_path / "vae")
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        needs_from(replace(PATHS, vae=tmp_path / "vae"), FLOAT32, text_tokens=224)


BFLOAT16 = dict.fromkeys(MODULES, torch.bfloat16)


@pytest.mark.parametrize(
    ("names", "precision", "int8", "expected"),
    [
        (BFLOAT16, EXACT, False, (True, True)),
        (BFLOAT16, FAST, False, (False, True)),
        (BFLOAT16, EXACT, True, (True, False)),
        (FLOAT32, EXACT, False, (False, False)),
    ],
)
def test_whether_the_file_holds_what_is_computed_with(checkpoint, names, precision, int8, expected):
    """The planner is told, and a mode that was asked for is refused, by the same rule."""
    found = needs(checkpoint, names, precision, text_encoder_int8=int8)
    assert (found.components["dit"].in_file, found.components["text_embedder"].in_file) == expected
    settings = {"dit": checkpoint, "text_encoder": PATHS.text_encoder, "dtypes": names, "precision": precision}
    for name, fits in zip(("dit", "text_embedder"), expected, strict=True):
        modes = {**dict.fromkeys(MODULES, BLOCKS), name: DISK}
        if fits:
            check_in_file(modes, text_encoder_int8=int8, **settings)
            continue
        with pytest.raises(ValueError, match=f"memory: {name} is 'disk', but"):
            check_in_file(modes, text_encoder_int8=int8, **settings)
