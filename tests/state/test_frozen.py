"""Parameters that don't train are left out of averaging, stay as they are to the bit, and must be equal everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raysgd_local.errors import InputError, UsageError
from raysgd_local.state.frozen import digest
from raysgd_local.state.replica_state import ReplicaState


class Adapted(nn.Module):
    """A frozen layer with a small adapter, as in LoRA."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(64, 64).requires_grad_(False)
        self.down, self.up = nn.Linear(64, 1, bias=False), nn.Linear(1, 64, bias=False)


def adapted(seed: int = 0) -> Adapted:
    torch.manual_seed(seed)
    return Adapted()


def average(states: list[ReplicaState]) -> None:
    flats = [torch.zeros(state.numel, dtype=state.dtype) for state in states]
    for i, (state, flat) in enumerate(zip(states, flats, strict=True), start=1):
        state.check()
        assert state.pack(flat, 0.1 * i)
    integers = [max(column) for column in zip(*(state.integers() for state in states), strict=True)]
    for state in states:
        state.install_integers(integers)
        state.install(torch.stack(flats).sum(0), sum(0.1 * i for i in range(1, len(states) + 1)))


def test_only_parameters_that_train_are_in_the_vector():
    state = ReplicaState(adapted())
    assert sum(state.parameter_sizes) == 2 * 64
    assert state.numel == 2 * 64 + 2  # with the two parameters' counts of gradients


def test_frozen_parameters_stay_to_the_bit_and_the_others_become_equal():
    models = [adapted() for _ in range(3)]
    before = models[0].base.weight.clone()
    for i, model in enumerate(models):
        nn.init.constant_(model.up.weight, float(i))
    states = [ReplicaState(model) for model in models]
    for _ in range(20):
        average(states)
    for model in models:
        assert torch.equal(model.base.weight, before)
        torch.testing.assert_close(model.up.weight.detach(), torch.full((64, 1), 0.8 / 0.6))


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), torch.finfo(torch.float32).min])
def test_a_frozen_mask_may_have_any_value(value):
    models = [adapted() for _ in range(2)]
    for model in models:
        model.mask = nn.Parameter(torch.full((3, 3), value), requires_grad=False)
    average([ReplicaState(model) for model in models])
    for model in models:
        expected = torch.full((3, 3), value)
        assert torch.equal(model.mask.view(torch.int32), expected.view(torch.int32))


def test_a_float64_parameter_that_is_frozen_does_not_widen_the_vector():
    model = adapted()
    model.base.double()
    assert ReplicaState(model).dtype == torch.float32


def test_averaged_optimizers_send_nothing_for_frozen_parameters():
    model = adapted()
    state = ReplicaState(model, [torch.optim.Adam(model.parameters())], optimizer_state="average")
    assert state.numel < 10 * 2 * 64 < model.base.weight.numel()


@pytest.mark.parametrize("where", [0, 2047, 4095])
def test_frozen_parameters_that_differ_between_workers_are_an_error_in_the_first_round(where):
    models = [adapted() for _ in range(2)]
    models[1].base.weight.data.view(-1)[where] += 1e-3
    with pytest.raises(
        InputError, match=r"frozen parameters: 'base.weight, base.bias' is not allowed.*equal on all"
    ):
        average([ReplicaState(model) for model in models])


def test_after_state_was_received_the_received_values_are_the_right_ones():
    models = [adapted(seed) for seed in range(2)]
    states = [ReplicaState(model) for model in models]
    models[1].load_state_dict(models[0].state_dict())
    for state in states:
        state.rebase()
        state.begin_view()
    average(states)


def test_a_parameter_unfrozen_later_is_refused_by_name_before_the_next_reduction():
    model = adapted()
    state = ReplicaState(model)
    state.check()
    model.base.requires_grad_(True)
    with pytest.raises(UsageError, match="base.weight was frozen when training began, and trains now"):
        state.check()


def test_a_parameter_frozen_later_is_averaged_as_before():
    """GANs switch `requires_grad` off and on within every step."""
    models = [adapted(), adapted()]
    states = [ReplicaState(model) for model in models]
    for i, model in enumerate(models):
        model.up.requires_grad_(False)
        model.up.weight.fill_(float(i))
    average(states)
    torch.testing.assert_close(models[0].up.weight.detach(), torch.full((64, 1), 2 / 3))
    assert torch.equal(models[0].up.weight, models[1].up.weight)


def test_a_frozen_parameter_that_the_loop_changes_is_refused_by_name():
    model = adapted()
    state = ReplicaState(model)
    model.base.bias.mul_(1)  # written, with the same content
    state.check()
    model.base.bias.add_(1)
    with pytest.raises(UsageError, match=r"base.bias has requires_grad=False, but the loop changed it.*\"mean\""):
        state.check()


def test_a_change_behind_autograds_back_is_found_at_the_next_view():
    model = adapted()
    state = ReplicaState(model)
    model.base.bias.data.add_(1)
    with pytest.raises(UsageError, match="base.bias"):
        state.begin_view()


@pytest.mark.parametrize("pattern", ["base.weight", "base.*"])
def test_a_frozen_parameter_with_the_rule_mean_is_averaged(pattern):
    models = [adapted(), adapted()]
    states = [ReplicaState(model, buffers={pattern: "mean"}) for model in models]
    for i, model in enumerate(models):
        model.base.weight.fill_(float(i))
    average(states)
    torch.testing.assert_close(models[0].base.weight.detach(), torch.full((64, 64), 2 / 3))
    assert torch.equal(models[0].base.weight, models[1].base.weight)


def test_a_frozen_parameter_with_the_rule_keep_is_each_workers_own():
    models = [adapted(0), adapted(1)]
    own = models[1].base.weight.clone()
    average([ReplicaState(model, buffers={"base.*": "keep"}) for model in models])
    assert torch.equal(models[1].base.weight, own)


def test_a_rule_that_a_frozen_parameter_cannot_have_is_refused_by_name_but_a_pattern_is_for_buffers():
    with pytest.raises(InputError, match="buffers.base.bias: 'max'.*same, mean, keep"):
        ReplicaState(adapted(), buffers={"base.bias": "max"})
    ReplicaState(adapted(), buffers={"base.*": "max"}).check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int8, torch.bool])
def test_a_digest_depends_on_every_element(dtype):
    tensor = torch.zeros(5000).to(dtype)
    whole = digest(tensor)
    assert digest(tensor.clone()) == whole
    for i in (0, 4095, 4999):
        other = tensor.clone()
        other[i] = 1
        assert digest(other) != whole


def test_a_model_without_a_parameter_that_trains_still_averages_its_buffers():
    models = [nn.BatchNorm1d(4, affine=False) for _ in range(2)]
    states = [ReplicaState(model) for model in models]
    for i, model in enumerate(models):
        model.running_mean.fill_(float(i))
    average(states)
    torch.testing.assert_close(models[0].running_mean, torch.full((4,), 2 / 3))
