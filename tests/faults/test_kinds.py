"""The table of faults: each kind has its effects, and the page tells them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raysgd_local.errors import InputError
from raysgd_local.faults.kinds import KINDS, REAL, RUN, FaultKind
from raysgd_local.faults.language import parse, parse_real, written
from raysgd_local.runtime import fault_effects as real
from raysgd_local.simulation.engine import fault_effects as simulated

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")


def row(kind: FaultKind) -> str:
    where = "" if kind.real else "only simulated: "
    rank = "" if kind.targets == RUN else ":1"
    return f"| `{kind.name}{rank}` | {where}{kind.says} | {kind.amount or ''} |".replace("|  |", "| |")


def words(kind: FaultKind) -> str:
    return f"{kind.name}@5s" if kind.targets == RUN else f"{kind.name}:1@5s"


def test_the_page_has_the_table():
    section = PAGE.partition("\n## Rehearsing\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `.*$", section, flags=re.M) == [row(kind) for kind in KINDS.values()]


def test_every_kind_has_an_effect_on_simulated_fleets():
    on_run = {name for name, kind in KINDS.items() if kind.targets == RUN}
    assert set(simulated.ON_RUN) == on_run
    assert set(simulated.ON_WORKER) == set(KINDS) - on_run


def test_every_real_kind_has_an_effect_on_real_processes_and_no_other_has():
    assert set(real.ON_WORKER) | set(real.ON_DRIVER) == set(REAL)
    on_run = {name for name in REAL if KINDS[name].targets == RUN}
    assert on_run <= set(real.ON_DRIVER)
    assert not on_run & set(real.ON_WORKER)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_words_follow_the_table(kind):
    (fault,) = parse(words(kind))
    assert fault.amount == (kind.amount.default if kind.amount else 0)
    assert parse(written((fault,))) == (fault,)
    if kind.real:
        assert parse_real(words(kind), workers=2) == (fault,)
    else:
        with pytest.raises(InputError, match=f"FAULT is one of {', '.join(REAL)}"):
            parse_real(words(kind), workers=2)
