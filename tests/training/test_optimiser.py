"""The optimiser: a group for each part, with its own moments' decay."""

import torch
from lora_training_helpers import lora_settings
from torch import nn

from kandinsky.training.optimiser import make_optimiser


def test_groups(tmp_path):
    objective = nn.Module()
    objective.student, objective.heads = nn.Linear(2, 2), nn.Linear(3, 1)
    made = make_optimiser(objective, lora_settings(tmp_path, tmp_path, tmp_path), torch.device("cpu"))
    assert isinstance(made, torch.optim.AdamW)
    shapes = [[tuple(value.shape) for value in group["params"]] for group in made.param_groups]
    assert shapes == [[(2, 2), (2,)], [(1, 3), (1,)]]
    assert all(group["betas"] == (0.9, 0.99) for group in made.param_groups)
