"""Every row of the table that says what happens to which piece of a replica's state."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import nn

from raysgd_local.errors import InputError, UsageError
from raysgd_local.state.replica_state import ReplicaState


def fleet(make: Callable[[], nn.Module], count: int = 3, **options: object) -> list[ReplicaState]:
    """Replicas of one architecture, each with values of its own."""
    states = []
    for seed in range(count):
        torch.manual_seed(seed)
        states.append(ReplicaState(make(), **options))
    return states


def reduced(states: Sequence[ReplicaState], weights: Sequence[float], gradients: bool = False) -> torch.Tensor:
    total = torch.zeros(states[0].numel, dtype=states[0].dtype)
    for state, weight in zip(states, weights, strict=True):
        flat = torch.full_like(total, float("nan"))  # whatever was there must be overwritten
        assert (state.packing_gradients if gradients else state.packing)(flat, weight).complete()
        total += flat
    return total


def average(states: Sequence[ReplicaState], weights: Sequence[float] = (1.0, 2.0, 5.0)) -> torch.Tensor:
    flat = reduced(states, weights)
    kept = flat.clone()
    integers = [max(column) for column in zip(*(state.integers() for state in states), strict=True)]
    for state in states:
        state.install_integers(integers)
        state.install(flat, sum(weights))
    assert torch.equal(flat, kept), "the reduced vector heals others later: it must stay"
    return flat


def model_of(state: ReplicaState) -> nn.Module:
    return state._model


def assert_equal_models(states: Sequence[ReplicaState]) -> None:
    first = model_of(states[0]).state_dict()
    for state in states[1:]:
        for name, value in model_of(state).state_dict().items():
            assert torch.equal(first[name], value), name


def conv_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


def small_conv_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)
        self.out.weight = self.embed.weight


class WithBuffers(nn.Module):
    def __init__(self, **buffers: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2))
        for name, value in buffers.items():
            self.register_buffer(name, value)


# Parameters


def test_parameters_become_the_weighted_mean_bit_identical_on_all() -> None:
    states = fleet(small_conv_net)
    rows = [[p.detach().double() for p in model_of(state).parameters()] for state in states]
    average(states)
    for i, parameter in enumerate(model_of(states[0]).parameters()):
        expected = (rows[0][i] + 2 * rows[1][i] + 5 * rows[2][i]) / 8
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-6, atol=1e-7)
    assert_equal_models(states)


def test_equal_replicas_stay_as_they_are_under_power_of_two_weights() -> None:
    model = small_conv_net()
    states = [ReplicaState(copy.deepcopy(model)) for _ in range(2)]
    before = [p.clone() for p in model.parameters()]
    average(states, [32.0, 32.0])
    assert all(torch.equal(a, b) for a, b in zip(before, model_of(states[0]).parameters(), strict=True))


def test_one_float64_tensor_makes_the_whole_vector_float64() -> None:
    states = fleet(lambda: nn.Linear(3, 2).double())
    expected = sum(w * model_of(s).weight.detach() for w, s in zip((1, 2, 5), states, strict=True)) / 8
    average(states)
    assert states[0].dtype == torch.float64
    torch.testing.assert_close(model_of(states[0]).weight.detach(), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype: torch.dtype) -> None:
    states = fleet(lambda: nn.Linear(3, 2).to(dtype))
    weights = (30000.0, 30000.0, 30000.0)  # would overflow a float16
    expected = (sum(model_of(s).weight.detach().float() for s in states) / 3).to(dtype)
    average(states, weights)
    assert states[0].dtype == torch.float32
    torch.testing.assert_close(model_of(states[0]).weight.detach(), expected, rtol=1e-2, atol=1e-3)
    assert model_of(states[0]).weight.dtype == dtype


def test_tied_parameters_travel_once_and_stay_tied() -> None:
    states = fleet(Tied)
    expected = sum(w * model_of(s).embed.weight.detach() for w, s in zip((1, 2, 5), states, strict=True)) / 8
    average(states)
    model = model_of(states[0])
    assert model.out.weight is model.embed.weight
    torch.testing.assert_close(model.embed.weight.detach(), expected)
    assert states[0]._layout.numel == 20


def test_channels_last_strides_survive_and_mean_the_same() -> None:
    plain, last = fleet(small_conv_net), fleet(lambda: small_conv_net().to(memory_format=torch.channels_last))
    average(plain)
    average(last)
    kernel = model_of(last[0])[0].weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model_of(plain[0]).parameters(), model_of(last[0]).parameters(), strict=True)
    )


def test_a_model_converted_later_still_gets_its_own_values() -> None:
    plain, late = fleet(small_conv_net), fleet(small_conv_net)
    for state in late:
        model_of(state).to(memory_format=torch.channels_last)
    average(plain)
    average(late)
    for a, b in zip(model_of(plain[0]).parameters(), model_of(late[0]).parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_complex_parameters_are_averaged() -> None:
    def make() -> nn.Module:
        model = nn.Module()
        model.z = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        return model

    states = fleet(make)
    expected = sum(w * model_of(s).z.detach() for w, s in zip((1, 2, 5), states, strict=True)) / 8
    average(states)
    torch.testing.assert_close(model_of(states[0]).z.detach(), expected)


def test_nothing_is_rebound_and_compiled_models_are_not_compiled_again() -> None:
    states = fleet(small_conv_net)
    model = model_of(states[0])
    compilations = 0

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        nonlocal compilations
        compilations += 1
        return graph.forward

    compiled = torch.compile(model, backend=count)
    inputs = torch.randn(2, 3, 6, 6)
    compiled(inputs)
    held = [(t, t.data_ptr()) for t in [*model.parameters(), *model.buffers()]]
    average(states)
    outputs = compiled(inputs)
    torch.testing.assert_close(outputs, model(inputs))
    assert compilations == 1
    assert all(
        t is now and t.data_ptr() == at
        for (t, at), now in zip(held, [*model.parameters(), *model.buffers()], strict=True)
    )
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["weight", "running_var"])
def test_a_replica_that_is_not_finite_writes_zeros_and_says_so(bad: float, where: str) -> None:
    state = ReplicaState(nn.BatchNorm1d(3))
    with torch.no_grad():
        getattr(model_of(state), where)[1] = bad
    flat = torch.full((state.numel + 2,), 7.0)
    assert not state.pack(flat, 3.0)
    assert flat.tolist() == [0.0] * state.numel + [7.0, 7.0]


def test_weight_zero_contributes_nothing_whatever_the_state_is() -> None:
    state = ReplicaState(nn.Linear(2, 2))
    with torch.no_grad():
        model_of(state).weight.fill_(float("nan"))
    flat = torch.ones(state.numel)
    assert state.pack(flat, 0.0)
    assert not flat.any()


def test_a_packing_writes_and_looks_at_its_blocks_as_they_are_drawn() -> None:
    wide = nn.Sequential(nn.Linear(300, 500), nn.Conv2d(3, 8, 3), nn.Linear(500, 600)).to(
        memory_format=torch.channels_last
    )
    state = ReplicaState(wide)
    flat = torch.full((state.numel,), float("nan"))
    whole = torch.cat([(p * 3).permute(0, 2, 3, 1).flatten() if p.dim() == 4 else (p * 3).flatten()
                       for p in wide.parameters()])  # fmt: skip
    packing, ends = state.packing(flat, 3.0), []
    for end in packing.parts():
        ends.append(end)
        assert torch.equal(flat[:end], whole[:end])
        assert flat[end:].isnan().all()
    assert packing.finite
    assert torch.equal(flat[: whole.numel()], whole)
    assert ends == [131_072, 262_144, 393_216]
    for same in (state.packing(flat, 0.0), state.packing_gradients(flat, 1.0)):
        assert list(same.parts()) == ends, "members must cut alike, whatever they contribute"
    with torch.no_grad():
        wide[2].bias[5] = float("nan")
    packing = state.packing(flat, 3.0)
    assert (list(packing.parts()), packing.finite) == (ends, False)


def test_gradients_whose_memory_is_in_another_order_than_their_parameters_are_packed_all_the_same() -> None:
    model = nn.Conv2d(3, 8, 3)
    gradient = torch.randn(8, 3, 3, 3)
    model.weight.grad = gradient.to(memory_format=torch.channels_last)
    state = ReplicaState(model)
    flat = torch.empty(state.numel)
    assert state.packing_gradients(flat, 2.0).complete()
    assert torch.equal(flat[: gradient.numel()], 2 * gradient.flatten())


def test_lazy_layers_must_have_a_shape() -> None:
    with pytest.raises(UsageError, match="run one batch"):
        ReplicaState(conv_net())


# Normalisation statistics


def test_pooled_statistics_are_those_of_the_joined_batches() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, (40, 4)), rng.normal(-1, 0.5, (60, 4))]
    states = fleet(lambda: nn.BatchNorm1d(4).double(), 2)
    for state, batch in zip(states, batches, strict=True):
        model_of(state).running_mean.copy_(torch.from_numpy(batch.mean(0)))
        model_of(state).running_var.copy_(torch.from_numpy(batch.var(0)))
    average(states, [40.0, 60.0])
    joined = np.concatenate(batches)
    np.testing.assert_allclose(model_of(states[0]).running_mean.numpy(), joined.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model_of(states[1]).running_var.numpy(), joined.var(0), rtol=1e-12)


def test_large_means_do_not_cancel_a_small_variance_away() -> None:
    states = fleet(lambda: nn.BatchNorm1d(1), 2)
    for state in states:
        model_of(state).running_mean.fill_(1000.0)
        model_of(state).running_var.fill_(0.01)
        state.rebase()  # what was committed last, equal on both
    model_of(states[1]).running_mean.fill_(1000.1)
    average(states, [1.0, 1.0])
    assert float(model_of(states[0]).running_var) == pytest.approx(0.0125, rel=1e-3)
    assert float(model_of(states[0]).running_mean) == pytest.approx(1000.05)
    assert_equal_models(states)


def test_the_last_committed_mean_is_what_later_rounds_start_from() -> None:
    states = fleet(lambda: nn.BatchNorm1d(2), 2)
    for state in states:
        model_of(state).running_mean.fill_(10_000.0)
    average(states, [1.0, 1.0])
    for round_ in range(3):
        for i, state in enumerate(states):
            model_of(state).running_mean.add_(1.0 + i / 10)
            model_of(state).running_var.fill_(0.01)
        average(states, [1.0, 1.0])
        assert float(model_of(states[0]).running_var[0]) == pytest.approx(0.0125, rel=2e-2), round_
        assert_equal_models(states)


def test_half_precision_statistics_stay_equal_over_rounds() -> None:
    states = fleet(lambda: nn.BatchNorm1d(3).half(), 2)
    for i in range(3):
        for j, state in enumerate(states):
            model_of(state).running_mean.add_(0.3 * (i + j))
        average(states, [1.0, 2.0])
        assert_equal_models(states)


def test_variance_is_never_negative() -> None:
    states = fleet(lambda: nn.BatchNorm1d(50), 3)
    for state in states:
        model_of(state).running_mean.copy_(torch.randn(50) * 1e4)
        model_of(state).running_var.zero_()
    average(states)
    assert (model_of(states[0]).running_var >= 0).all()


def test_statistics_of_instance_norm_without_tracking_and_of_frozen_layers_do_no_harm() -> None:
    states = fleet(lambda: nn.Sequential(nn.InstanceNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)))
    average(states)
    assert_equal_models(states)


# Other buffers


def test_floating_buffers_are_averaged_and_integers_take_the_maximum_exactly() -> None:
    wide = 2**62 + 1
    states = [
        ReplicaState(
            WithBuffers(ema=torch.tensor([float(i)]), count=torch.tensor(wide - i), seen=torch.tensor([i == 1]))
        )
        for i in range(2)
    ]
    average(states, [1.0, 3.0])
    model = model_of(states[0])
    assert model.ema.item() == 0.75
    assert model.count.item() == wide
    assert model.seen.tolist() == [True]
    assert_equal_models(states)


def test_a_rebound_buffer_is_found_again() -> None:
    states = fleet(lambda: WithBuffers(ema=torch.zeros(2)), 2)
    model_of(states[0]).ema = torch.tensor([2.0, 4.0])
    average(states, [1.0, 1.0])
    assert model_of(states[0]).ema.tolist() == model_of(states[1]).ema.tolist() == [1.0, 2.0]


def test_rules_by_name_and_pattern_are_obeyed() -> None:
    def make() -> nn.Module:
        return nn.ModuleDict({"a": WithBuffers(f=torch.randn(1), n=torch.randint(100, (1,)))})

    states = fleet(make, 2, buffers={"a.f": "keep", "*.n": "keep"})
    before = [(model_of(s)["a"].f.item(), model_of(s)["a"].n.item()) for s in states]
    average(states, [1.0, 1.0])
    assert [(model_of(s)["a"].f.item(), model_of(s)["a"].n.item()) for s in states] == before


def test_statistics_with_a_rule_of_their_own_are_not_pooled() -> None:
    states = fleet(lambda: nn.BatchNorm1d(2), 2, buffers={"running_*": "keep"})
    model_of(states[0]).running_mean.fill_(5.0)
    average(states, [1.0, 1.0])
    assert model_of(states[0]).running_mean.tolist() == [5.0, 5.0]
    assert model_of(states[1]).running_mean.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"count": "maximum"}, ["buffers.count", "'maximum'", "max, same, keep"]),
        ({"ema": "max"}, ["buffers.ema", "'max'", "mean, keep"]),
        ({"cuont": "max"}, ["'cuont'", "did you mean 'count'?"]),
    ],
)
def test_an_unknown_rule_or_buffer_is_named(rules: dict[str, str], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        ReplicaState(WithBuffers(ema=torch.zeros(1), count=torch.tensor(0)), buffers=rules)
    assert all(word in str(caught.value) for word in words)


def test_a_mask_with_infinities_is_kept_and_does_not_count_as_divergence() -> None:
    mask = torch.triu(torch.full((4, 4), -float("inf")), 1)
    lowest = torch.full((2,), torch.finfo(torch.float32).min)
    states = fleet(lambda: WithBuffers(mask=mask.clone(), lowest=lowest.clone()))
    average(states)
    assert torch.equal(model_of(states[0]).mask, mask)
    assert torch.equal(model_of(states[0]).lowest, lowest)


def test_large_integer_tables_cost_two_integers_and_must_be_equal() -> None:
    states = fleet(lambda: WithBuffers(positions=torch.arange(1000)), 2)
    assert len(states[0].integers()) == 2
    average(states, [1.0, 1.0])
    model_of(states[1]).positions[3] = 7
    for state in states:  # all must see it alike
        values = [max(pair) for pair in zip(*(s.integers() for s in states), strict=True)]
        with pytest.raises(InputError, match=r"buffers\.positions.*give it a rule"):
            state.install_integers(values)


# Optimizer state


def train(state: ReplicaState, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        model_of(state)(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()


def trained(
    make: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer], steps: Sequence[int], policy: str
) -> tuple[list[ReplicaState], list[torch.optim.Optimizer]]:
    models = [nn.Linear(3, 2) for _ in steps]
    optimizers = [make(list(model.parameters())) for model in models]
    states = [
        ReplicaState(m, [o], optimizer_state=policy)  # type: ignore[arg-type]
        for m, o in zip(models, optimizers, strict=True)
    ]
    for seed, (state, optimizer, count) in enumerate(zip(states, optimizers, steps, strict=True)):
        train(state, optimizer, count, seed)
    return states, optimizers


def momentum(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def test_kept_optimizer_state_is_left_alone() -> None:
    states, optimizers = trained(momentum, (1, 2), "keep")
    before = [copy.deepcopy(o.state_dict()["state"]) for o in optimizers]
    average(states, [1.0, 1.0])
    for own, optimizer in zip(before, optimizers, strict=True):
        now = optimizer.state_dict()["state"]
        assert torch.equal(own[0]["momentum_buffer"], now[0]["momentum_buffer"])


def test_reset_clears_it_at_each_commit() -> None:
    states, optimizers = trained(momentum, (1, 2), "reset")
    average(states, [1.0, 1.0])
    assert not any(optimizer.state for optimizer in optimizers)
    train(states[0], optimizers[0], 1, 0)


def test_momentum_is_averaged_and_a_missing_one_counts_as_zero() -> None:
    states, optimizers = trained(momentum, (0, 2, 3), "average")
    own = [
        [optimizers[i].state[p]["momentum_buffer"].clone() for p in model_of(states[i]).parameters()]
        for i in (1, 2)
    ]
    average(states)
    for i, parameter in enumerate(model_of(states[0]).parameters()):
        expected = (2 * own[0][i] + 5 * own[1][i]) / 8
        torch.testing.assert_close(optimizers[0].state[parameter]["momentum_buffer"], expected)
    train(states[0], optimizers[0], 1, 0)


def test_momentum_that_nobody_has_yet_is_not_made_up() -> None:
    states, optimizers = trained(momentum, (0, 0), "average")
    average(states, [1.0, 1.0])
    assert not optimizers[0].state


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_moments_follow_the_bias_corrected_formula(kind: type[torch.optim.Adam], amsgrad: bool) -> None:
    states, optimizers = trained(lambda p: kind(p, 1e-2, betas=(0.9, 0.99), amsgrad=amsgrad), (0, 2, 9), "average")
    weights, ages = (1.0, 2.0, 5.0), (0, 2, 9)
    own = [copy.deepcopy(optimizers[i].state[model_of(states[i]).weight]) for i in (1, 2)]
    average(states, weights)
    entry = optimizers[0].state[model_of(states[0]).weight]
    for name, beta in {"exp_avg": 0.9, "exp_avg_sq": 0.99}.items():
        mass = sum(w * (1 - beta**t) for w, t in zip(weights, ages, strict=True))
        expected = (2 * own[0][name] + 5 * own[1][name]) / mass * (1 - beta**9)
        torch.testing.assert_close(entry[name], expected)
    assert int(entry["step"]) == 9
    for other in optimizers[1:]:
        values = other.state[other.param_groups[0]["params"][0]]
        assert all(torch.equal(entry[name], values[name]) for name in entry)
    train(states[0], optimizers[0], 1, 0)


def test_an_optimizer_that_cannot_be_averaged_is_named() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"RMSprop.*Adam, AdamW, SGD.*keep"):
        ReplicaState(model, [torch.optim.RMSprop(model.parameters())], optimizer_state="average")
    ReplicaState(model, [torch.optim.RMSprop(model.parameters())], optimizer_state="reset")


def test_an_unknown_policy_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'average'"):
        ReplicaState(nn.Linear(1, 1), optimizer_state="averge")  # type: ignore[arg-type]


# Gradients


def set_gradients(state: ReplicaState, seed: int, steps_to_none: bool = False) -> None:
    model = model_of(state)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    if not steps_to_none:
        model(torch.randn(4, 3, 6, 6)).square().mean().backward()


def test_gradients_become_the_weighted_mean_also_where_a_member_had_none() -> None:
    states = fleet(small_conv_net)
    for seed, state in enumerate(states):
        set_gradients(state, seed, steps_to_none=seed == 1)
    rows = [[p.grad.clone() for p in model_of(states[i]).parameters()] for i in (0, 2)]
    flat = reduced(states, (1.0, 2.0, 5.0), gradients=True)
    for state in states:
        state.install_gradients(flat, 8.0)
    for i, parameters in enumerate(zip(*(model_of(s).parameters() for s in states), strict=True)):
        torch.testing.assert_close(parameters[1].grad, (rows[0][i] + 5 * rows[1][i]) / 8)
        assert all(torch.equal(parameters[0].grad, p.grad) for p in parameters)


def test_a_gradient_that_nobody_had_stays_none() -> None:
    states = fleet(lambda: nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), 2)
    for state in states:
        model_of(state)[0](torch.randn(1, 2)).sum().backward()
    flat = reduced(states, (1.0, 1.0), gradients=True)
    states[0].install_gradients(flat, 2.0)
    assert model_of(states[0])[0].weight.grad is not None
    assert model_of(states[0])[1].weight.grad is None


def test_buffers_travel_with_gradients_and_are_committed_by_themselves() -> None:
    states = fleet(small_conv_net, 2)
    for seed, state in enumerate(states):
        set_gradients(state, seed)
    flat = reduced(states, (1.0, 1.0), gradients=True)
    before = model_of(states[0])[1].running_mean.clone()
    for state in states:
        state.install_gradients(flat, 2.0)
    assert torch.equal(model_of(states[0])[1].running_mean, before)
    for state in states:
        state.install_buffers(flat, 2.0)
    assert torch.equal(model_of(states[0])[1].running_mean, model_of(states[1])[1].running_mean)
    assert not torch.equal(model_of(states[0])[1].running_mean, before)


def test_sparse_gradients_are_averaged_densely() -> None:
    states = fleet(lambda: nn.Embedding(5, 2, sparse=True), 2)
    for i, state in enumerate(states):
        model_of(state)(torch.tensor([i])).sum().backward()
    flat = reduced(states, (1.0, 1.0), gradients=True)
    states[0].install_gradients(flat, 2.0)
    assert model_of(states[0]).weight.grad.tolist() == [[0.5, 0.5], [0.5, 0.5], [0, 0], [0, 0], [0, 0]]


def test_an_overflowing_gradient_is_told_and_zeroed() -> None:
    state = ReplicaState(nn.Linear(2, 1))
    model_of(state).weight.grad = torch.tensor([[float("inf"), 0.0]])
    flat = torch.ones(state.numel)
    assert not state.packing_gradients(flat, 1.0).complete()
    assert not flat.any()


# Sharing


def test_a_snapshot_shares_no_storage_and_writes_no_more_than_it_shows() -> None:
    whole = torch.randn(100_000)
    model = WithBuffers()
    model.weight = nn.Parameter(whole[:10])
    snapshot = ReplicaState(model).snapshot()
    with torch.no_grad():
        model.weight.zero_()
    assert snapshot["model"]["weight"].any()
    stream = io.BytesIO()
    torch.save(snapshot, stream)
    assert len(stream.getvalue()) < 20_000


def test_tied_tensors_are_written_once() -> None:
    snapshot = ReplicaState(Tied()).snapshot()["model"]
    assert snapshot["embed.weight"].data_ptr() == snapshot["out.weight"].data_ptr()


def test_a_replica_restored_from_a_snapshot_goes_on_like_its_donor() -> None:
    states = fleet(small_conv_net, 2)
    average(states, [1.0, 2.0])
    joiner = ReplicaState(small_conv_net())
    joiner.restore(states[0].snapshot())
    for seed, state in enumerate([states[0], joiner]):
        set_gradients(state, seed)
    average([states[0], joiner], [1.0, 1.0])
    assert_equal_models([states[0], joiner])


def test_the_checksum_sees_a_change_in_the_last_bit() -> None:
    state = fleet(small_conv_net, 1)[0]
    flat = reduced([state], [1.0])
    before = state.checksum(flat)
    flat[3] = torch.nextafter(flat[3], torch.tensor(9.0))
    assert state.checksum(flat) != before
    assert 0 <= before < 2**48
