"""`docs/methods.md` has every recipe, in the order in which they are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raysgd_local.algorithms.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("section", ["Recipes", "The recipes, trained"])
def test_the_table_has_every_recipe(section):
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|", text, flags=re.M)
    assert sorted(rows) == sorted(RECIPES)
    assert len(rows) == len(set(rows))
