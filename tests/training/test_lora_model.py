"""Two trees of modules over one copy of weights: what is shared, what PEFT adds, and weights in float8."""

import pytest
import torch
from helpers import relative_error
from lora_training_helpers import small_model

from kandinsky.training.lora_model import Adapters, StoredFloat8, lora_layers, restored, sharing, store_in_float8_

TIME = torch.tensor([749])


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 4, 4, 16, generator=generator), torch.randn(6, 64, generator=generator), TIME


def disturb(model):
    """As if it had been trained."""
    with torch.no_grad():
        for value in Adapters(model.dit).parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))


def test_one_copy_of_the_weights(teacher):
    model = small_model(teacher)
    own = {value.data_ptr() for value in model.base.parameters()}
    shared = {value.data_ptr() for name, value in model.dit.named_parameters() if "lora_" not in name}
    assert shared == own


def test_it_begins_as_no_change_and_changes_only_one_tree(teacher):
    model = small_model(teacher)
    before = model.base(*inputs())
    assert torch.equal(model.dit(*inputs()), before)
    disturb(model)
    assert torch.equal(model.base(*inputs()), before)
    assert relative_error(model.dit(*inputs()), before) > 0.01


def test_only_low_rank_weights_are_trained(teacher):
    model = small_model(teacher)
    trained = {name for name, value in model.dit.named_parameters() if value.requires_grad}
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert not any(value.requires_grad for value in model.base.parameters())
    assert len(lora_layers(model.dit)) == 4 * 2 * 2  # Linears, blocks of a pair, pairs


def test_adapters_are_the_very_parameters(teacher):
    model = small_model(teacher)
    adapters = Adapters(model.dit)
    name = "transformer_blocks.0.1.feed_forward.in_layer"
    layer = lora_layers(model.dit)[name]
    assert adapters.get_parameter(f"{name}.lora_B.weight") is layer.lora_B["default"].weight
    assert len(list(adapters.parameters())) == 2 * len(lora_layers(model.dit))


def test_the_seed_decides(teacher):
    one, other = (Adapters(small_model(teacher).dit).state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_unknown_targets_are_refused(teacher):
    with pytest.raises(ValueError, match=r"targets: 'to_q' is the end of no Linear's name; allowed are .*to_query"):
        small_model(teacher, targets=("to_q",))


def test_float8_is_near_and_one_copy(teacher):
    model = small_model(teacher)
    before = model.base(*inputs())
    store_in_float8_(model)
    assert 0 < relative_error(model.base(*inputs()), before) < 0.1
    disturb(model)
    model.dit(*inputs()).square().mean().backward()
    assert all(value.grad is not None for value in Adapters(model.dit).parameters())
    for name, layer in lora_layers(model.dit).items():
        assert model.base.get_submodule(name) is layer.base_layer


def test_gradients_through_a_stored_weight(teacher):
    linear = small_model(teacher).base.get_submodule("transformer_blocks.0.0.feed_forward.in_layer")
    stored = StoredFloat8(linear)
    one, other = (torch.randn(5, linear.in_features, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    one.requires_grad_(True)
    other.requires_grad_(True)
    stored(one).square().sum().backward()
    weight = restored(stored.weight, stored.get_buffer("scale"), torch.float32)
    torch.nn.functional.linear(other, weight, linear.bias).square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_another_tree_computes_the_same(teacher):
    base = small_model(teacher).base
    assert torch.equal(sharing(base)(*inputs()), base(*inputs()))
