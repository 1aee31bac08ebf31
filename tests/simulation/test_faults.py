"""Schedules of faults in the words of `--chaos`."""

import math
from random import Random

import pytest

from raysgd_local.errors import InputError
from raysgd_local.simulation.faults import Fault, When, parse, random_faults, written


def test_a_schedule_is_read():
    assert parse("kill:3@round=20; stop:2@30s;slow:3x2@10s; drain:1@5s; nan:0@round=5") == (
        Fault("kill", When(round=20), 3),
        Fault("stop", When(seconds=30), 2, math.inf),
        Fault("slow", When(seconds=10), 3, 2.0),
        Fault("drain", When(seconds=5), 1, 30.0),
        Fault("nan", When(round=5), 0),
    )


def test_a_drawn_schedule_is_read_back_as_it_was_written():
    for seed in range(100):
        faults = random_faults(Random(seed), 8, 300)
        assert parse(written(faults)) == faults


@pytest.mark.parametrize("words", ["kil:1@5s", "kill@5s", "kill:1", "driver:1@5s", "kill:1@round=x", "stop:2@30"])
def test_what_is_no_fault_is_refused(words):
    with pytest.raises(InputError, match="chaos"):
        parse(words)


def test_a_typo_gets_a_hint():
    with pytest.raises(InputError, match="did you mean 'kill'"):
        parse("kil:1@5s")
