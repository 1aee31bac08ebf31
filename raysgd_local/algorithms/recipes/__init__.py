"""Recipes: named combinations of the choices in `Algorithm`, with the values of their papers. They have no code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.recipes.base import Recipe
from raysgd_local.algorithms.recipes.how import HOW
from raysgd_local.algorithms.recipes.what import WHAT
from raysgd_local.algorithms.recipes.when import WHEN

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (*WHEN, *HOW, *WHAT)})
"""The recipes by name."""

__all__ = ["RECIPES", "Recipe"]
