"""Outer steps and couplings: known answers, on vectors."""

from __future__ import annotations

import pytest
import torch

from raysgd_local.algorithms.averaging import Elastic, Mean
from raysgd_local.algorithms.outer import OUTERS, BlockMomentum, MaxChange, OuterOptimizer, OuterStep, SlowMo
from raysgd_local.algorithms.outer.optimizer import OPTIMIZERS
from raysgd_local.errors import InputError
from raysgd_local.state.anchor import Anchor, make_optimizer
from raysgd_local.training.replica.plain_values import from_bytes, to_bytes

G = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
DILOCO = OuterOptimizer("SGD", 0.7, {"momentum": 0.9, "nesterov": True})


def anchor_at(x: torch.Tensor, outer=None, averaging=None) -> Anchor:
    own = [x.clone()]
    return Anchor(lambda: own, x.dtype, x.device, outer, averaging or Mean())


def steps(outer, rounds: int, workers: int = 4, lr: float = 0.1) -> list[torch.Tensor]:
    """How far the anchor moves in each round in which the mean is G below it."""
    anchor, moved = anchor_at(torch.zeros(3, dtype=torch.float64), outer), []
    for _ in range(rounds):
        before = anchor.flat.clone()
        anchor.commit(before - G, workers, lr)
        moved.append(before - anchor.flat)
    return moved


@pytest.mark.parametrize(("zeta", "momentum", "workers"), [(1.0, None, 4), (0.5, 0.9, 4), (1.0, None, 8)])
@pytest.mark.parametrize("nesterov", [False, True])
def test_block_momentum_amplifies_a_constant_step(zeta, momentum, workers, nesterov):
    b = momentum or 1 - 1 / workers
    moved = steps(BlockMomentum(zeta, momentum, nesterov), 400, workers)
    torch.testing.assert_close(moved[-1], zeta / (1 - b) * G, rtol=1e-9, atol=0)


def test_block_momentum_follows_the_number_of_workers_and_one_worker_begins_anew():
    assert BlockMomentum().step(2, 0.1).options["momentum"] == 0.5
    assert BlockMomentum().step(8, 0.1).options["momentum"] == 0.875
    anchor = anchor_at(torch.zeros(3, dtype=torch.float64), BlockMomentum())
    for workers, expected in ((2, G), (2, 1.5 * G), (1, G), (2, G)):
        before = anchor.flat.clone()
        anchor.commit(before - G, workers, 0.1)
        torch.testing.assert_close(before - anchor.flat, expected)


def test_diloco_s_first_step_and_its_limit():
    moved = steps(DILOCO, 400)
    torch.testing.assert_close(moved[0], 1.33 * G)
    torch.testing.assert_close(moved[-1], 7 * G)


@pytest.mark.parametrize("outer", [SlowMo(beta=0, alpha=1), OuterOptimizer("SGD", 1.0), None])
def test_without_momentum_the_anchor_is_the_mean(outer):
    for moved in steps(outer, 3):
        torch.testing.assert_close(moved, G, rtol=1e-15, atol=1e-15)


def test_slow_momentum_keeps_its_meaning_when_the_rate_decays():
    anchor = anchor_at(torch.zeros(3, dtype=torch.float64), SlowMo(beta=0.5))
    anchor.commit(anchor.flat - 0.4 * G, 4, lr=0.4)  # u = G
    before = anchor.flat.clone()
    anchor.commit(before - 0.04 * G, 4, lr=0.04)  # u = 1.5 G
    torch.testing.assert_close(before - anchor.flat, 0.04 * 1.5 * G)
    assert SlowMo().step(4, lr=0.0) is None


def test_max_change_shortens_long_steps_only():
    (short,) = steps(MaxChange(100.0), 1)
    (long,) = steps(MaxChange(0.1), 1)
    torch.testing.assert_close(short, G)
    torch.testing.assert_close(long, 0.1 * G / G.norm())


@pytest.mark.parametrize("outer", [BlockMomentum(), DILOCO, SlowMo(0.5), OuterOptimizer("Adam", 0.1), None])
def test_a_joiner_goes_on_exactly_as_those_who_were_there(outer):
    old = anchor_at(torch.zeros(3, dtype=torch.float64), outer)
    for round in range(3):
        old.commit(old.flat - (round + 1) * G, 4, 0.1)
    new = anchor_at(torch.ones(3, dtype=torch.float64), outer)
    new.load(from_bytes(to_bytes(old.state())))
    assert torch.equal(new._own()[0], old.flat)
    for anchor in (old, new):
        anchor.commit(anchor.flat - G, 4, 0.1)
    assert torch.equal(old.flat, new.flat)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_that_can_be_named_moves_the_anchor_towards_the_mean(name):
    (moved,) = steps(OuterOptimizer(name, lr=0.01), 1)
    assert (moved * G).sum() > 0


def test_an_option_that_the_optimizer_does_not_take_is_told_with_those_that_it_takes():
    parameter = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(InputError, match=r"options: .*SGD's momentum, dampening.*unexpected"):
        make_optimizer(parameter, OuterStep("SGD", {"lr": 1.0, "momentun": 0.9}))


def test_weight_decay_is_zero_unless_given():
    parameter = torch.nn.Parameter(torch.zeros(3))
    assert make_optimizer(parameter, OuterStep("AdamW", {"lr": 1.0})).defaults["weight_decay"] == 0
    decayed = make_optimizer(parameter, OuterStep("AdamW", {"lr": 1.0, "weight_decay": 0.1}))
    assert decayed.defaults["weight_decay"] == 0.1


def exchange(anchors: list[Anchor], weights: list[float], **how) -> None:
    p = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    mean = p @ torch.stack([anchor._own()[0] for anchor in anchors])
    for anchor in anchors:
        anchor.commit(mean, len(anchors), 0.1, **how)


def test_elastic_averaging_comes_to_rest_where_it_should():
    """Z = c̄, x_i − c̄ = (1−α)ηa(c_i−c̄)/(1−(1−α)(1−ηa)), for gradient descent on ½a(x−c_i)² with equal weights."""
    centres = torch.tensor([[-1.0], [0.0], [4.0]], dtype=torch.float64)
    eta, a, alpha = 0.1, 0.7, 0.3
    anchors = [anchor_at(torch.ones(1, dtype=torch.float64), averaging=Elastic(alpha=alpha)) for _ in centres]
    for _ in range(2000):
        for anchor, c in zip(anchors, centres, strict=True):
            anchor._own()[0].sub_(eta * a * (anchor._own()[0] - c))
        exchange(anchors, [1, 1, 1])
    centre = centres.mean()
    torch.testing.assert_close(anchors[0].flat[0], centre)
    for anchor, c in zip(anchors, centres, strict=True):
        expected = centre + (1 - alpha) * eta * a * (c - centre) / (1 - (1 - alpha) * (1 - eta * a))
        torch.testing.assert_close(anchor._own()[0], expected)


def test_elastic_averaging_conserves_the_weighted_sum_of_members_and_centre():
    torch.manual_seed(0)
    anchors = [anchor_at(torch.zeros(5, dtype=torch.float64), averaging=Elastic(0.8)) for _ in range(4)]
    for anchor in anchors:
        anchor._own()[0].normal_()
    weights = [1.0, 2.0, 3.0, 4.0]

    def conserved() -> torch.Tensor:
        return 4 * sum(w / 10 * a._own()[0] for w, a in zip(weights, anchors, strict=True)) + anchors[0].flat

    before = conserved().clone()
    for _ in range(5):
        exchange(anchors, weights)
        torch.testing.assert_close(conserved(), before)
    assert all(torch.equal(anchor.flat, anchors[0].flat) for anchor in anchors)


def test_a_member_without_a_finite_state_goes_to_the_centre():
    anchor = anchor_at(torch.zeros(2, dtype=torch.float64), averaging=Elastic(0.8))
    anchor._own()[0].fill_(torch.nan)
    anchor.commit(torch.ones(2, dtype=torch.float64), 4, 0.1, healthy=False)
    torch.testing.assert_close(anchor._own()[0], torch.full((2,), 0.8, dtype=torch.float64))


def test_members_that_train_alone_share_the_mean_only_to_show_it():
    anchors = [anchor_at(torch.full((2,), float(i), dtype=torch.float64)) for i in range(3)]
    exchange(anchors, [1, 1, 2], stay=True)
    for i, anchor in enumerate(anchors):
        assert torch.equal(anchor._own()[0], torch.full((2,), float(i), dtype=torch.float64))
        with anchor.shown():
            assert torch.equal(anchor._own()[0], torch.full((2,), 1.25, dtype=torch.float64))
        assert torch.equal(anchor._own()[0], torch.full((2,), float(i), dtype=torch.float64))
    exchange(anchors, [1, 1, 2])
    assert all(torch.equal(anchor._own()[0], anchors[0].flat) for anchor in anchors)


def test_half_precision_members_follow_an_anchor_in_full_precision():
    own = [torch.zeros(2, dtype=torch.float16)]
    anchor = Anchor(lambda: own, torch.float32, own[0].device, OuterOptimizer("SGD", 1e-5), Mean())
    for _ in range(100):
        anchor.commit(anchor.flat - 1, 4, 0.1)
    torch.testing.assert_close(own[0], torch.full((2,), -1e-3, dtype=torch.float16), rtol=1e-3, atol=0)


def test_configurations_can_name_every_outer_step():
    assert set(OUTERS.values()) == {OuterOptimizer, BlockMomentum, SlowMo, MaxChange}


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        (OuterOptimizer, {"name": "Sgd"}, "name"),
        (OuterOptimizer, {"name": "LBFGS"}, "name"),
        (OuterOptimizer, {"lr": 0.0}, "lr"),
        (OuterOptimizer, {"options": {"lr": 1.0}}, "options"),
        (BlockMomentum, {"momentum": 1.0}, "momentum"),
        (BlockMomentum, {"zeta": 0.0}, "zeta"),
        (SlowMo, {"beta": 1.0}, "beta"),
        (SlowMo, {"alpha": 0.0}, "alpha"),
        (MaxChange, {"limit": 0.0}, "limit"),
        (Elastic, {"beta": 1.0}, "beta"),
        (Elastic, {"alpha": 0.0}, "alpha"),
    ],
)
def test_options_out_of_range_are_refused_by_name(kind, options, field):
    with pytest.raises(InputError) as caught:
        kind(**options)
    assert (caught.value.field, caught.value.exit_status) == (field, 2)
