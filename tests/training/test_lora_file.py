"""Trained low-rank weights in files: our own reader and PEFT's folder agree."""

import pytest
import torch
from helpers import TINY
from lora_helpers import linears, matrices
from safetensors.torch import save_file

from kandinsky.checkpoint.lora import CONFIG, WEIGHTS, read_lora
from kandinsky.training.lora_file import check_lora_target, write_lora


def test_where_something_else_stands(tmp_path):
    (tmp_path / "peft").mkdir()
    for name in (CONFIG, WEIGHTS):
        check_lora_target(tmp_path / "peft")
        (tmp_path / "peft" / name).touch()
    for free in ("peft", "new", "a.safetensors", "new/a.safetensors", f"peft/{WEIGHTS}"):
        check_lora_target(tmp_path / free)
    (tmp_path / "b.safetensors").mkdir()
    (tmp_path / "clip.mp4").touch()
    for taken in ("", "b.safetensors", "clip.mp4", f"peft/{CONFIG}"):
        with pytest.raises(ValueError, match=r"out=.*; allowed is a name that ends with .safetensors, or a folder"):
            check_lora_target(tmp_path / taken)


def test_both_kinds_of_file(tmp_path):
    assert TINY.is_dir()
    state = {}
    for name, (down, up) in matrices().items():
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(state, tmp_path / "ema.safetensors")
    for out in (tmp_path / "new" / "a.safetensors", tmp_path / "peft"):
        for _ in range(2):  # what stands there is replaced
            assert write_lora(tmp_path / "ema.safetensors", out, alpha=2.5) == out
        lora = read_lora(out, linears())
        assert {layer.scale for layer in lora.layers.values()} == {2.5 / 4}
        for name, (down, up) in matrices().items():
            assert torch.equal(lora.layers[name].down, down.bfloat16())
            assert torch.equal(lora.layers[name].up, up.bfloat16())
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(tmp_path / "peft")
    assert (config.r, config.lora_alpha) == (4, 2.5)
