"""Schedules: their rules, their known answers, their options."""

import itertools
import json
import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local.algorithms.schedules import (
    QSR,
    SCHEDULES,
    TRIGGERS,
    AdaComm,
    AtEpoch,
    AtFirstDecay,
    AtLoss,
    Compared,
    Delayed,
    Dynamic,
    EveryStep,
    FixedPeriod,
    Hierarchical,
    LupaLinear,
    LupaLoss,
    Observation,
    Once,
    Probe,
    Stability,
    Switch,
)
from raysgd_local.algorithms.schedules.base import LONGEST
from raysgd_local.errors import InputError
from raysgd_local.serialization import to_plain

SEEN = Observation(
    round=1, loss=2.0, round_samples=64, samples=64, steps=2, epoch=0, elapsed_s=1.0, lr_decay=1.0, workers=2
)

EXAMPLES = [
    EveryStep(),
    FixedPeriod(8),
    AdaComm(tau0=8, interval_s=2),
    LupaLinear(tau0=3, steps=100, rounds=5),
    LupaLoss(tau0=3, tau_max=50),
    LupaLoss(tau0=3, tau_max=50, smooth=True),
    QSR(c=0.2, base=2),
    Once(),
    Switch(EveryStep(), FixedPeriod(4), when=AtEpoch(1)),
    Switch(EveryStep(), LupaLoss(2), when=AtLoss(1.5)),
    Switch(EveryStep(), FixedPeriod(2), when=Stability(every=1, held_out=2)),
    Switch(FixedPeriod(2), AdaComm(tau0=8, interval_s=2), when=AtFirstDecay()),
    Delayed(AdaComm(tau0=8, interval_s=2), delay=3),
    Switch(EveryStep(), Switch(FixedPeriod(2), AdaComm(interval_s=1), AtEpoch(2)), AtEpoch(1)),
]

observations = st.builds(
    replace,
    st.just(SEEN),
    loss=st.floats(0.01, 10) | st.just(math.nan),
    round_samples=st.integers(0, 100),
    epoch=st.integers(0, 3),
    elapsed_s=st.floats(0, 20),
    lr_decay=st.sampled_from([1.0, 0.1, 0.01]),
    lr=st.sampled_from([0.1, 0.05, 0.01, 0.0]),
    rounds_left=st.sampled_from([0, 4, 9]),
    compared=st.none() | st.builds(Compared, st.floats(0.1, 1), st.floats(0.1, 1), st.floats(0, 0.1)),
)


def usable(stream):
    """The stream with time in order, and NaN losses only where nobody took a step."""
    times = sorted(seen.elapsed_s for seen in stream)
    return [
        replace(seen, elapsed_s=at, round_samples=0 if math.isnan(seen.loss) else max(1, seen.round_samples))
        for seen, at in zip(stream, times, strict=True)
    ]


def follow(schedule, stream):
    """The state after each observation, the initial one first."""
    states = [schedule.init()]
    for seen in stream:
        states.append(schedule.next(states[-1], seen))
    return states


def one_round_intervals(ratios, decays=None, seconds=10.0):
    """A first round, and then one round an interval with these loss ratios and decay factors."""
    decays = decays or [1.0] * len(ratios)
    return [
        replace(SEEN, loss=2.0 * ratio, elapsed_s=seconds * (index + 1), lr_decay=decay)
        for index, (ratio, decay) in enumerate(zip(ratios, decays, strict=True))
    ]


def taus(states):
    return [state.period.tau for state in states]


@pytest.mark.parametrize("schedule", EXAMPLES, ids=str)
@given(stream=st.lists(observations, max_size=12))
def test_a_restored_state_goes_on_as_the_original(schedule, stream):
    for state, seen in zip(follow(schedule, usable(stream)), [*usable(stream), SEEN], strict=True):
        restored = schedule.restore(json.loads(json.dumps(to_plain(state))))
        assert restored == state
        assert schedule.next(restored, replace(seen, loss=1.0)) == schedule.next(state, replace(seen, loss=1.0))


@pytest.mark.parametrize("schedule", EXAMPLES, ids=str)
@given(stream=st.lists(observations, max_size=12))
def test_the_period_is_at_least_one_and_every_change_says_why(schedule, stream):
    states = follow(schedule, usable(stream))
    assert all(state.period.tau >= 1 and state.period.why for state in states)
    assert all(state.period.tau == 1 for state in states if state.period.mode == "gradients")


def test_every_step_exchanges_gradients_for_ever():
    assert {(s.period.tau, s.period.mode) for s in follow(EveryStep(), [SEEN] * 5)} == {(1, "gradients")}


def test_a_fixed_period_exchanges_parameters_and_stays():
    assert {(s.period.tau, s.period.mode) for s in follow(FixedPeriod(7), [SEEN] * 5)} == {(7, "parameters")}


class TestAdaComm:
    def test_known_answer_with_a_decay(self):
        # τ_l for l = 0 … 9; the loss ratios of l = 1 … 9 end the intervals; F_0 is that of the first round.
        stream = one_round_intervals(
            ratios=[1, 0.8, 0.25, 0.25, 0.2, 0.1, 0.1, 0.1, 0.1], decays=[1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]
        )
        states = follow(AdaComm(tau0=16, interval_s=10), stream)
        assert taus(states) == [16, 8, 4, 2, 1, 1, 16, 8, 4, 2]

    def test_a_falling_loss_alone_sets_the_period_where_it_falls_fast_enough(self):
        stream = one_round_intervals([1, 0.16, 0.04, 0.01])
        assert taus(follow(AdaComm(tau0=100, interval_s=10, gamma=0.9), stream)) == [100, 90, 40, 20, 10]

    def test_the_interval_ends_with_the_first_round_that_reaches_it_and_the_next_begins_there(self):
        stream = [replace(SEEN, elapsed_s=at) for at in (4, 8, 11, 19, 21, 22)]
        assert taus(follow(AdaComm(tau0=16, interval_s=10), stream)) == [16, 16, 16, 8, 8, 4, 4]

    def test_the_loss_of_an_interval_is_weighted_by_samples(self):
        first = replace(SEEN, loss=1.0, round_samples=10, elapsed_s=1)
        second = replace(SEEN, loss=0.1, round_samples=90, elapsed_s=10)
        state = follow(AdaComm(tau0=100, interval_s=10, gamma=1), [first, second])[-1]
        assert state.period.tau == math.ceil(math.sqrt(0.19) * 100)
        assert state.period.why == "the loss is 0.19 of the first round's"

    def test_a_loss_that_stands_still_is_guarded_against_down_to_one(self):
        assert taus(follow(AdaComm(tau0=5, interval_s=10), one_round_intervals([1] * 4))) == [5, 2, 1, 1, 1]

    def test_a_period_that_the_rule_wants_longer_is_lengthened_only_when_the_rate_changed(self):
        rising = one_round_intervals([1, 4, 4], decays=[1, 1, 0.25])
        assert taus(follow(AdaComm(tau0=8, interval_s=10), rising)) == [8, 4, 2, 32]

    def test_the_decay_is_compared_at_the_ends_of_intervals(self):
        stream = [replace(SEEN, elapsed_s=at, lr_decay=s) for at, s in ((5, 1), (6, 0.25), (10, 0.25), (20, 0.25))]
        assert taus(follow(AdaComm(tau0=8, interval_s=10), stream)) == [8, 8, 8, 16, 8]

    def test_an_exact_root_is_not_rounded_up(self):
        assert math.sqrt((7 / 50) ** 2) * 50 > 7  # in floating point
        stream = one_round_intervals([1, (7 / 50) ** 2])
        assert taus(follow(AdaComm(tau0=50, interval_s=10), stream))[-1] == 7

    def test_rounds_in_which_nobody_took_a_step_change_nothing(self):
        empty = replace(SEEN, loss=math.nan, round_samples=0, elapsed_s=50)
        schedule = AdaComm(interval_s=10)
        assert follow(schedule, [empty])[-1] == schedule.init()
        assert follow(schedule, [SEEN, empty])[-1] == follow(schedule, [SEEN])[-1]

    @pytest.mark.parametrize("loss", [0.0, -1.0, math.nan, math.inf])
    def test_a_first_loss_without_a_ratio_is_refused(self, loss):
        schedule = AdaComm()
        with pytest.raises(InputError, match=r"^loss: .* positive, finite"):
            schedule.next(schedule.init(), replace(SEEN, loss=loss))

    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_a_later_round_without_a_finite_loss_is_passed_over(self, loss):
        stream = one_round_intervals([1, 0.01])
        broken = replace(SEEN, loss=loss, elapsed_s=20)
        schedule = AdaComm(tau0=100, interval_s=10)
        assert taus(follow(schedule, [stream[0], broken, replace(stream[1], elapsed_s=21)])) == [100, 50, 50, 10]

    def test_a_negative_loss_later_means_the_shortest_period(self):
        assert taus(follow(AdaComm(interval_s=10), one_round_intervals([1, -0.5])))[-1] == 1

    def test_a_rate_of_zero_keeps_the_period(self):
        assert taus(follow(AdaComm(interval_s=10), one_round_intervals([1, 1], decays=[1, 0]))) == [16, 8, 8]

    @given(st.lists(st.floats(0.001, 100), min_size=1, max_size=30), st.integers(1, 300))
    def test_without_a_change_of_rate_the_period_never_grows(self, losses, tau0):
        found = taus(follow(AdaComm(tau0=tau0, interval_s=10), one_round_intervals(losses)))
        assert found == sorted(found, reverse=True)


class TestLupaLinear:
    def test_known_answer(self):
        schedule = LupaLinear(tau0=91, steps=5000, rounds=10)
        expected = [91, 182, 273, 363, 455, 545, 637, 727, 818, 909]
        assert taus(follow(schedule, [SEEN] * 9)) == expected
        assert sum(expected) == 5000

    @given(st.data())
    def test_the_periods_sum_to_the_steps_exactly_and_never_fall_by_more_than_rounding(self, data):
        tau0, rounds = data.draw(st.integers(1, 200)), data.draw(st.integers(2, 200))
        steps = data.draw(st.integers(rounds * tau0, 100 * rounds * tau0))
        found = [LupaLinear(tau0, steps, rounds).tau(i) for i in range(rounds)]
        assert sum(found) == steps
        assert found[0] == tau0
        assert all(b >= a - 1 for a, b in itertools.pairwise(found))

    def test_after_its_rounds_the_last_period_stays_and_empty_rounds_do_not_count(self):
        schedule = LupaLinear(tau0=1, steps=6, rounds=3)
        empty = replace(SEEN, loss=math.nan, round_samples=0)
        assert taus(follow(schedule, [SEEN, empty, SEEN, SEEN, SEEN])) == [1, 2, 2, 3, 3, 3]


class TestLupaLoss:
    @pytest.mark.parametrize(("ratio", "expected"), [(1, 5), (1.0001, 10), (8, 10), (27, 15), (0.5, 5), (1e9, 64)])
    def test_known_answers(self, ratio, expected):
        found = taus(follow(LupaLoss(tau0=5, tau_max=64), [SEEN, replace(SEEN, loss=SEEN.loss / ratio)]))
        assert found == [5, 5, expected]

    @pytest.mark.parametrize(("ratio", "expected"), [(1, 5), (1.0001, 5), (8, 10), (2, 6), (0.5, 5), (1e9, 64)])
    def test_the_smooth_form_neither_doubles_at_once_nor_falls_below_the_first(self, ratio, expected):
        schedule = LupaLoss(tau0=5, tau_max=64, smooth=True)
        assert taus(follow(schedule, [SEEN, replace(SEEN, loss=SEEN.loss / ratio)]))[-1] == expected

    @pytest.mark.parametrize("loss", [0.0, -1.0, math.nan])
    def test_a_first_loss_without_a_ratio_is_refused_and_a_later_one_passed_over(self, loss):
        schedule, broken = LupaLoss(), replace(SEEN, loss=loss)
        with pytest.raises(InputError, match=r"^loss: .* positive, finite"):
            schedule.next(schedule.init(), broken)
        states = follow(schedule, [SEEN, broken])
        assert states[-1] == states[-2]


class TestQSR:
    def test_the_period_grows_with_the_inverse_square_of_the_rate_and_never_below_its_base(self):
        stream = [replace(SEEN, lr=lr) for lr in (0.8, 0.4, 0.2, 0.1, 0.05, 0.0)]
        assert taus(follow(QSR(c=0.8, base=2), stream)) == [2, 2, 4, 16, 64, 256, LONGEST]

    def test_a_rate_that_went_through_a_float32_makes_no_difference(self):
        above = struct.unpack("f", struct.pack("f", 0.1))[0]
        assert above > 0.1
        assert taus(follow(QSR(c=0.4, base=1), [replace(SEEN, lr=above)]))[-1] == 16


class TestSwitch:
    def test_a_loss_level_switches_after_the_first_round_below_it(self):
        stream = [replace(SEEN, loss=loss) for loss in (2.0, 0.5, 2.0)]
        states = follow(Switch(EveryStep(), FixedPeriod(4), when=AtLoss(0.5)), stream)
        assert taus(states) == [1, 1, 4, 4]
        assert states[2].period.why == "the loss came down to 0.5: fixed period of 4"

    def test_rounds_without_a_loss_do_not_switch(self):
        empty = replace(SEEN, loss=math.nan, round_samples=0)
        assert taus(follow(Switch(when=AtLoss(5.0)), [empty])) == [1, 1]

    def test_post_local_sgd_is_every_step_up_to_the_switch(self):
        stream = [replace(SEEN, epoch=epoch) for epoch in (0, 0, 1, 1, 2)]
        states = follow(Switch(EveryStep(), FixedPeriod(16), when=AtEpoch(1)), stream)
        reference = follow(EveryStep(), stream)
        assert [s.period for s in states[:3]] == [s.period for s in reference[:3]]
        assert taus(states) == [1, 1, 1, 16, 16, 16]
        assert states[3].period.why == "epoch 1 has begun: fixed period of 16"

    def test_the_first_decay_switches_once_and_for_all(self):
        stream = [replace(SEEN, lr_decay=s) for s in (1.0, 0.1, 1.0)]
        assert taus(follow(Switch(), stream)) == [1, 1, 16, 16]

    def test_the_second_schedule_counts_its_seconds_and_its_first_loss_from_the_switch(self):
        schedule = Switch(EveryStep(), AdaComm(tau0=16, interval_s=10), when=AtEpoch(1))
        switching = replace(SEEN, epoch=1, elapsed_s=100, loss=50.0)
        after = [
            replace(SEEN, epoch=1, elapsed_s=at, loss=loss) for at, loss in ((109, 1.0), (110, 1.0), (120, 0.04))
        ]
        states = follow(schedule, [SEEN, switching, *after])
        assert taus(states) == [1, 1, 16, 16, 8, 4]
        assert states[4].period.why.startswith("the loss is 1 of the first round's")
        assert states[3].period.why.startswith("epoch 1 has begun")

    def test_switches_nest(self):
        schedule = Switch(EveryStep(), Switch(FixedPeriod(2), FixedPeriod(8), AtEpoch(2)), AtEpoch(1))
        stream = [replace(SEEN, epoch=epoch) for epoch in (0, 1, 1, 2, 3)]
        assert taus(follow(schedule, stream)) == [1, 1, 2, 2, 8, 8]


class TestDelayed:
    def test_it_goes_on_for_so_many_steps_but_fewer_than_the_period_has(self):
        states = follow(Delayed(AdaComm(16, interval_s=10), delay=6), one_round_intervals([1] * 5))
        assert taus(states) == [16, 8, 4, 2, 1, 1]
        assert [state.period.delay for state in states] == [6, 6, 3, 1, 0, 0]

    def test_of_a_hierarchical_schedule_it_delays_what_is_over_all(self):
        late = Delayed(Hierarchical(FixedPeriod(4), FixedPeriod(3)), delay=2)
        whole = [replace(SEEN, whole=number % 3 == 2) for number in range(6)]
        periods = [state.period for state in follow(late, whole)]
        assert [period.mode for period in periods] == ["partial", "partial", "parameters"] * 2 + ["partial"]
        assert [period.delay for period in periods] == [0, 0, 2] * 2 + [0]

    def test_inside_of_blocks_nothing_is_delayed(self):
        with pytest.raises(InputError, match="inside"):
            Hierarchical(Delayed(FixedPeriod(4)), FixedPeriod(3))

    @pytest.mark.parametrize("every", [EveryStep(), Once(), Switch()])
    def test_what_it_can_t_delay_is_refused(self, every):
        with pytest.raises(InputError, match="applied later"):
            Delayed(every)


class TestStability:
    @staticmethod
    def tried(results, every=2, tau=3):
        """Rounds of probes whose results are these: K + 1 rounds each, `every` apart."""
        stream = []
        for found in results:
            stream += [replace(SEEN, rounds_left=5)] * (every + tau)
            stream.append(replace(SEEN, compared=found))
        return follow(Switch(EveryStep(), FixedPeriod(tau), Stability(every, held_out=2)), stream)

    def test_a_probe_tries_as_many_steps_as_the_period_has_and_compares_after_as_many_rounds(self):
        states = self.tried([Compared(2.0, 1.0, 0.0)])
        probes = [(n, state.period.probe) for n, state in enumerate(states) if state.period.probe]
        assert probes == [(2, Probe(3, 2)), (5, Probe(0, 2))]
        assert taus(states) == [1] * 7

    @pytest.mark.parametrize(
        ("results", "switches"),
        [
            ([(1.02, 1.0, 0.0), (1.02, 1.0, 0.0)], True),
            ([(1.03, 1.0, 0.0), (1.02, 1.0, 0.0)], False),
            ([(1.02, 1.0, 0.0), (1.03, 1.0, 0.0), (1.02, 1.0, 0.0)], False),
            ([(1.03, 1.0, 0.015), (1.03, 1.0, 0.015)], True),
            ([(1.02, 1.0, 0.0), None, (1.02, 1.0, 0.0)], True),
            ([(math.nan, 1.0, 0.0), (math.inf, 1.0, 0.0)], False),
            ([(-1.0, -1.0, 0.0), (-1.0, -1.0, 0.0)], True),
            ([(-0.99, -1.0, 0.0), (-0.99, -1.0, 0.0)], False),
        ],
    )
    def test_it_switches_when_local_steps_were_as_good_in_two_probes_running(self, results, switches):
        states = self.tried([None if found is None else Compared(*found) for found in results])
        assert taus(states)[-2:] == ([1, 3] if switches else [1, 1])
        assert ("2 probes running as good: fixed period of 3" in states[-1].period.why) is switches

    def test_where_the_epoch_has_too_few_batches_left_nothing_is_tried(self):
        schedule = Switch(EveryStep(), FixedPeriod(3), Stability(1, held_out=2))
        states = follow(schedule, [replace(SEEN, rounds_left=4)] * 9 + [replace(SEEN, rounds_left=5)])
        assert [state.period.probe for state in states] == [None] * 10 + [Probe(3, 2)]

    @pytest.mark.parametrize(
        ("options", "field", "reason"),
        [
            ({"first": FixedPeriod(2)}, "first", "with synchronous ones"),
            ({"then": Once()}, "then", "one averaging"),
            ({"then": Switch(FixedPeriod(2), EveryStep(), AtEpoch(1))}, "then", "one averaging"),
            ({"then": FixedPeriod(9), "when": Stability(steps=8)}, "when.steps", "drift apart less"),
        ],
    )
    def test_what_it_can_t_compare_is_refused_with_the_reason(self, options, field, reason):
        with pytest.raises(InputError) as caught:
            Switch(**{"when": Stability(), **options})
        assert caught.value.field == field
        assert reason in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        (FixedPeriod, {"tau": 0}, "tau"),
        (FixedPeriod, {"tau": 2.5}, "tau"),
        (FixedPeriod, {"tau": True}, "tau"),
        (AdaComm, {"tau0": 0}, "tau0"),
        (AdaComm, {"interval_s": 0.0}, "interval_s"),
        (AdaComm, {"interval_s": math.inf}, "interval_s"),
        (AdaComm, {"gamma": 0.0}, "gamma"),
        (AdaComm, {"gamma": 1.5}, "gamma"),
        (AdaComm, {"gamma": "half"}, "gamma"),
        (AtEpoch, {"epoch": 0}, "epoch"),
        (AtLoss, {"loss": math.nan}, "loss"),
        (Delayed, {"delay": -1}, "delay"),
        (Delayed, {"every": "fixed"}, "every"),
        (Stability, {"every": 0}, "every"),
        (Stability, {"steps": 0}, "steps"),
        (Stability, {"held_out": 1}, "held_out"),
        (Stability, {"epsilon": 0.0}, "epsilon"),
        (Stability, {"epsilon": 1.0}, "epsilon"),
        (LupaLinear, {"rounds": 1}, "rounds"),
        (LupaLinear, {"tau0": 10, "rounds": 10, "steps": 99}, "steps"),
        (LupaLoss, {"tau0": 10, "tau_max": 9}, "tau_max"),
        (QSR, {"c": 0.0}, "c"),
        (QSR, {"base": 0}, "base"),
        (Switch, {"first": "every-step"}, "first"),
        (Switch, {"then": FixedPeriod}, "then"),
        (Switch, {"when": 3}, "when"),
    ],
)
def test_options_out_of_range_are_refused_by_name(kind, options, field):
    with pytest.raises(InputError) as caught:
        kind(**options)
    assert (caught.value.field, caught.value.exit_status) == (field, 2)


def test_a_class_instead_of_a_schedule_says_what_to_write():
    with pytest.raises(InputError, match=r"did you mean FixedPeriod\(\)\?"):
        Switch(then=FixedPeriod)


def test_configurations_can_name_every_schedule_and_trigger():
    simple = {EveryStep, FixedPeriod, AdaComm, LupaLinear, LupaLoss, QSR, Once}
    assert set(SCHEDULES.values()) == {*simple, Hierarchical, Dynamic, Delayed, Switch}
    assert set(TRIGGERS.values()) == {AtEpoch, AtFirstDecay, AtLoss, Stability}
    assert all(kind().init().period.tau >= 1 for kind in SCHEDULES.values())
