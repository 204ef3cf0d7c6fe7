"""What low-rank training is estimated to take, against modules that are there."""

from dataclasses import replace

from helpers import TINY
from lora_training_helpers import lora_settings

from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.config import FLASH_512, PUBLISHED_DIT
from kandinsky.memory.footprint import LIBRARY_BYTES
from kandinsky.model.dit import DiT
from kandinsky.training.discriminator import Heads
from kandinsky.training.lora_memory import PAIR, lora_needs
from kandinsky.training.lora_model import Adapters, adapted, store_in_float8_

CONFIG = dit_config(open_checkpoint(TINY / FLASH_512.dit_file))


def bytes_of(module):
    return sum(value.nbytes for value in (*module.parameters(), *module.buffers()))


def test_what_stays_and_what_is_trained_are_counted_exactly(tmp_path):
    settings = lora_settings(tmp_path, tmp_path, tmp_path, mixed_precision="bf16", ema_decay=0.9)
    for precision in ("bf16", "float8"):
        needs = lora_needs(CONFIG, replace(settings, base_precision=precision), tokens=100)
        model = adapted(
            DiT(CONFIG).bfloat16(), rank=settings.rank, alpha=1, targets=settings.targets, dropout=0.0, seed=0
        )
        if precision == "float8":
            store_in_float8_(model)
        rope = sum(value.nbytes for name, value in model.base.named_buffers() if "scale" not in name)
        assert needs.base == bytes_of(model.base) - rope
        adapters, heads = bytes_of(Adapters(model.dit)), bytes_of(Heads(CONFIG))
        assert needs.trained == 5 * adapters + 4 * heads  # with gradients, two moments, and the averages of the one


def test_what_takes_less(tmp_path):
    """Of the published model: each way that the page names, and by how much."""
    whole = lora_settings(tmp_path, tmp_path, tmp_path, mixed_precision="bf16", rank=32, ema_decay=0.9)
    needs = lora_needs(PUBLISHED_DIT, whole, tokens=11_488)
    for changes in ({"base_precision": "float8"}, {"heads_every": 7}, {"objective": "velocity"}):
        assert lora_needs(PUBLISHED_DIT, replace(whole, **changes), tokens=11_488).peak < needs.peak
    shorter = lora_needs(PUBLISHED_DIT, whole, tokens=5_744)
    assert shorter.working - LIBRARY_BYTES == (needs.working - LIBRARY_BYTES) // 2
    (tmp_path / "keep.txt").write_text("a cat\n")
    kept = lora_needs(PUBLISHED_DIT, replace(whole, keep=tmp_path / "keep.txt"), tokens=11_488)
    assert kept.working - needs.working == 11_488 * PUBLISHED_DIT.model_dim * PAIR * PUBLISHED_DIT.num_blocks
