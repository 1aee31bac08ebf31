"""How much members count: FedNova's known answers."""

import numpy as np
import pytest

from raysgd_local.algorithms.weights import FedNova, Samples
from raysgd_local.algorithms.weights.fednova import reach


@pytest.mark.parametrize(
    ("momentum", "nesterov", "expected"), [(0.0, False, 7.0), (0.9, False, 23.0467), (0.9, True, 27.7420)]
)
def test_the_reach_of_seven_steps_is_the_paper_s(momentum, nesterov, expected):
    assert reach(7, momentum, nesterov) == pytest.approx(expected, abs=5e-5)


def test_with_linear_losses_the_step_is_the_mean_gradient_s_times_the_mean_reach_whatever_the_steps():
    """X ← anchor − η·τ_eff·Σ p_i g_i for any τ_i."""
    random, weights, rate = np.random.default_rng(3), FedNova(), 0.1
    for _ in range(50):
        taken = random.integers(1, 20, size=5)
        samples = [int(n) for n in 8 * taken]
        gradients, anchor = random.normal(size=(5, 3)), random.normal(size=3)
        rows = anchor - rate * taken[:, None] * gradients
        counts = np.array([weights.weight(n, reach(t)) for n, t in zip(samples, taken, strict=True)])
        mean = counts @ rows / counts.sum()
        after = anchor + weights.stretch(samples, counts.tolist()) * (mean - anchor)
        p = np.array(samples) / sum(samples)
        np.testing.assert_allclose(after, anchor - rate * (p @ taken) * (p @ gradients), rtol=1e-12)


def test_with_equal_steps_it_is_the_plain_mean():
    weights = FedNova()
    counts = [weights.weight(n, reach(4)) for n in (8, 16, 8)]
    assert [count / sum(counts) for count in counts] == [0.25, 0.5, 0.25]
    assert weights.stretch([8, 16, 8], counts) == pytest.approx(1.0, rel=1e-15)


def test_who_took_no_step_counts_for_nothing():
    weights = FedNova()
    counts = [weights.weight(16, reach(2)), weights.weight(0, reach(0))]
    assert counts == [8.0, 0.0]
    assert weights.stretch([16, 0], counts) == 1.0
    assert weights.stretch([0], [0.0]) == 1.0
    assert Samples().stretch([16, 0], [16.0, 0.0]) == 1.0
