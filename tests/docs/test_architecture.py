"""What `docs/architecture.md` says in numbers is what the code does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from raysgd_local import config
from raysgd_local.control.controller.settings import Limit, Timeouts
from raysgd_local.control.replicated.program import Program
from raysgd_local.run.request import Request, from_config

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_table_of_timeouts_has_every_one_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.partition("## Time-outs")[2], flags=re.M)
    request = from_config(config.load())
    assert isinstance(request, Request)
    expected = {
        field.name: getattr(request.settings.timeouts, field.name) for field in dataclasses.fields(Timeouts)
    }
    expected |= {"formation_s": request.formation_s, "collective_s": request.collective_s}
    assert dict(rows) == {name: told(limit) for name, limit in expected.items()}


def told(limit: Limit | float) -> str:
    if isinstance(limit, Limit):
        return f"{limit.rounds:g} rounds, {limit.floor_s:g} s to {limit.ceiling_s:g} s"
    return f"{limit:g} s"


def test_every_setting_that_the_table_names_exists():
    for path in re.findall(r"`((?:workers|timeouts)\.\w+)`", PAGE):
        section, name = path.split(".")
        assert hasattr(getattr(config.load(), section), name), path


def test_the_length_of_a_segment_is_as_told():
    told = re.search(r"about (\d+) s of them", PAGE)
    assert told
    assert float(told.group(1)) == Program.segment_s
