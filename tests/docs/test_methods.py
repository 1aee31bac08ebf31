"""`docs/methods.md` has every recipe, in the order in which they are listed."""

from __future__ import annotations

import re
from pathlib import Path

from raysgd_local.algorithms.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


def test_the_table_has_every_recipe():
    rows = re.findall(r"^\| `([\w-]+)` \|", PAGE.partition("## Rounds")[0], flags=re.M)
    assert sorted(rows) == sorted(RECIPES)
    assert len(rows) == len(set(rows))
