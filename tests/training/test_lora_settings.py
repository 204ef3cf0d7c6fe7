"""Settings of low-rank training: what is refused, with the argument's name."""

import pytest
from lora_training_helpers import lora_settings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": "gan"}, "objective='gan': allowed are 'ladd', 'velocity'"),
        ({"base_precision": "int4"}, "base_precision='int4': allowed are 'bf16', 'float8'"),
        ({"rank": 0}, "rank=0: allowed is 1 and more"),
        ({"alpha": 0.0}, "alpha=0.0: allowed is a finite number above 0"),
        ({"alpha": float("nan")}, "alpha=nan: allowed is a finite number above 0"),
        ({"keep_weight": float("nan")}, "keep_weight=nan: allowed is 0 and more"),
        ({"keep_weight": -1.0}, "keep_weight=-1.0: allowed is 0 and more"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"targets": ()}, "targets=()"),
        ({"fsdp": True}, "fsdp=True: allowed is False"),
        ({"batch_size": 1}, "batch_size=1: allowed is 2 and more"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"micro_batch": 1, "cuda_graphs": True}, "cuda_graphs=True records whole batches"),
        ({"optimiser_bits": 4}, "optimiser_bits=4: allowed are 32 and 8"),
        ({"heads_every": 0}, "heads_every=0"),
    ],
)
def test_what_is_refused(changes, said, tmp_path):
    with pytest.raises(ValueError, match="allowed") as error:
        lora_settings(tmp_path, tmp_path, tmp_path, **changes)
    assert said in str(error.value)


def test_one_clip_is_enough_without_an_adversary(tmp_path):
    settings = lora_settings(tmp_path, tmp_path, tmp_path, objective="velocity", batch_size=1)
    assert set(settings.groups()) == {"student"}
    assert set(lora_settings(tmp_path, tmp_path, tmp_path).groups()) == {"student", "heads"}
