"""Schedules of faults in the words of `--chaos`."""

import math
from random import Random

import pytest

from raysgd_local.errors import InputError
from raysgd_local.faults.language import Fault, When, parse, parse_real, written
from raysgd_local.simulation.search.random_faults import random_faults


def test_a_schedule_is_read():
    assert parse("kill:3@round=20; stop:2@30s;slow:3x2@10s; drain:1@5s; nan:0@round=5; drain:node1@60s") == (
        Fault("kill", When(round=20), 3),
        Fault("stop", When(seconds=30), 2, math.inf),
        Fault("slow", When(seconds=10), 3, 2.0),
        Fault("drain", When(seconds=5), 1, 30.0),
        Fault("nan", When(round=5), 0),
        Fault("drain", When(seconds=60), 1, 30.0, "nodes"),
    )


def test_a_drawn_schedule_is_read_back_as_it_was_written():
    for seed in range(100):
        faults = random_faults(Random(seed), 8, 300)
        assert parse(written(faults)) == faults


@pytest.mark.parametrize(
    "words", ["kil:1@5s", "kill@5s", "kill:1", "driver:1@5s", "kill:1@round=x", "stop:2@30", "stop:1x1.2.3@5s"]
)
def test_what_is_no_fault_is_refused(words):
    with pytest.raises(InputError, match="chaos"):
        parse(words)


def test_a_typo_gets_a_hint_and_its_place():
    with pytest.raises(InputError, match=r"'kil:1@5s'.*\(at character 17; did you mean 'kill'\?\)"):
        parse("stop:1@round=3; kil:1@5s")


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("kill:4@5s", "a rank below 4"),
        ("kill:0@5s;slow:1x0.5@5s", r"a factor of at least 1 \(at character 11\)"),
        ("kill:1@event=5", "events are the simulator's"),
        ("vanish:1@5s", "FAULT is one of kill, stop"),
    ],
)
def test_what_can_not_happen_to_real_processes_is_refused(words, allowed):
    with pytest.raises(InputError, match=allowed):
        parse_real(words, workers=4)


def test_a_node_and_a_joiner_can_be_meant():
    node, joiner = parse_real("kill:node0@5s; kill:j0@round=3", workers=4)
    assert (node.among, joiner.among) == ("nodes", "joiners")
