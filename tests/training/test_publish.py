"""A trained DiT as a published checkpoint."""

from pathlib import Path

import torch
from helpers import SMALL, TINY, just_saved, own_weights
from model_helpers import SMALL_DIT
from safetensors.torch import load_file

from kandinsky.checkpoint.dit_file import dit_in
from kandinsky.config import FLASH_512
from kandinsky.factory import get_T2V_pipeline
from kandinsky.training.publish import main, publish


def test_a_published_dit_is_the_pipelines_own(teacher, tmp_path, capsys):
    for part in TINY.iterdir():
        if part.name != FLASH_512.dit_file:
            (tmp_path / part.name).symlink_to(part)
    main([str(teacher), str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / FLASH_512.dit_file)
    dit = get_T2V_pipeline("cpu", cache_dir=tmp_path, local_files_only=True, progress=False).dit
    assert dit.config == SMALL_DIT
    for name, value in load_file(teacher).items():
        assert torch.equal(dit.state_dict()[name], value.bfloat16().float())


def test_it_goes_before_what_was_saved_before(teacher, tmp_path):
    """Also where a save was killed before its parts were in their places; what was converted of it goes too."""
    weights = own_weights(tmp_path / "w", SMALL)
    (weights / Path(FLASH_512.dit_file).with_suffix(".safetensors")).write_bytes(b"converted")
    publish(teacher, just_saved(weights))
    dit = dit_in(weights, FLASH_512)
    assert dit == weights / FLASH_512.dit_file
    assert torch.load(dit).keys() == load_file(teacher).keys()


def test_what_stands_there_is_replaced(teacher, tmp_path):
    (tmp_path / FLASH_512.dit_file).write_text("old")
    target = publish(teacher, tmp_path)
    assert {value.dtype for value in torch.load(target).values()} == {torch.bfloat16}
    assert [file.name for file in tmp_path.iterdir()] == [FLASH_512.dit_file]
