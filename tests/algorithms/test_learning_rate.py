"""The learning rate over epochs and workers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local.algorithms.learning_rate import LearningRate, scale
from raysgd_local.errors import InputError
from raysgd_local.serialization import from_plain, to_plain


def test_a_constant_rate_never_decays():
    assert [LearningRate().decay(done) for done in (0, 0.5, 100)] == [1, 1, 1]


def test_multistep_decays_at_each_milestone():
    rate = LearningRate("multistep", milestones=(30, 60), gamma=0.1)
    assert [rate.decay(done) for done in (0, 29.99, 30, 59, 60)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_falls_from_one_to_zero_and_stays():
    rate = LearningRate("cosine", epochs=8)
    expected = [1, 0.5 + math.sqrt(0.125), 0.5, 0, 0]
    assert [rate.decay(done) for done in (0, 2, 4, 8, 9)] == pytest.approx(expected)


def test_linear_scaling_warms_up_from_the_single_worker_rate():
    rate = LearningRate(warmup_epochs=5)
    assert [rate.warmup(done, "linear", 8) for done in (0, 2.5, 5, 50)] == [1, 4.5, 8, 8]


def test_warm_up_without_scaling_begins_low_but_above_zero():
    rate = LearningRate(warmup_epochs=2)
    assert [rate.warmup(done) for done in (0, 1, 2)] == pytest.approx([0.1, 0.55, 1])


def test_without_warm_up_the_scaled_rate_holds_from_the_start():
    assert LearningRate().factor(0, "sqrt", 9) == 3


def test_scaling_and_warm_up_are_no_decay():
    rate = LearningRate("multistep", milestones=(3,), warmup_epochs=2)
    assert rate.decay(0) == 1
    assert rate.factor(1, "linear", 3) == 2
    assert rate.factor(4, "linear", 3) == pytest.approx(0.3)


@given(st.floats(0, 20), st.sampled_from(["none", "linear", "sqrt"]), st.integers(1, 64))
def test_warm_up_stays_between_the_single_worker_rate_and_the_scaled_one(done, scaling, workers):
    factor = LearningRate(warmup_epochs=5).warmup(done, scaling, workers)
    assert (0.1 if scaling == "none" else 1) <= factor <= scale(scaling, workers)


def test_it_survives_its_plain_form():
    rate = LearningRate("multistep", milestones=(1.5, 3.0), warmup_epochs=1.0)
    assert from_plain(LearningRate, to_plain(rate)) == rate


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"kind": "cosin"}, "kind"),
        ({"kind": "multistep"}, "milestones"),
        ({"kind": "multistep", "milestones": (3, 2)}, "milestones"),
        ({"kind": "multistep", "milestones": (0, 2)}, "milestones"),
        ({"kind": "multistep", "milestones": (1,), "gamma": 0}, "gamma"),
        ({"kind": "multistep", "milestones": (1,), "epochs": 3}, "epochs"),
        ({"milestones": (3,)}, "milestones"),
        ({"kind": "cosine"}, "epochs"),
        ({"kind": "cosine", "epochs": 0}, "epochs"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"warmup_epochs": math.nan}, "warmup_epochs"),
    ],
)
def test_options_out_of_range_or_unread_are_refused_by_name(options, field):
    with pytest.raises(InputError) as caught:
        LearningRate(**options)
    assert caught.value.field == field


def test_a_typo_in_the_kind_gets_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        LearningRate("cosin")
