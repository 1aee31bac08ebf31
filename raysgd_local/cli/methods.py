"""Format the methods for a terminal."""

from __future__ import annotations

import textwrap

import yaml

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.config.alternatives import BUILDER, find_recipe

WIDTH = 100


def every() -> str:
    """List every method with a line and its paper."""
    width = max(map(len, RECIPES)) + 2
    return "\n".join(
        f"{recipe.name:<{width}}{recipe.summary}\n{_wrap(recipe.citation, width)}" for recipe in RECIPES.values()
    )


def one(name: str) -> str:
    """Show a method in full, with its configuration. Raises `InputError` for an unknown name."""
    recipe = find_recipe(name)
    settings = yaml.safe_dump({"algorithm": BUILDER.plain(recipe.algorithm, Algorithm)}, sort_keys=False)
    parts = {"Formula": recipe.formula, "Beware": recipe.traps, "Paper": recipe.citation}
    told = "\n".join(f"{title}\n{_wrap(text, 2)}" for title, text in parts.items())
    return f"{recipe.name}: {recipe.summary}\n\n{told}\nConfiguration\n{textwrap.indent(settings.rstrip(), '  ')}"


def _wrap(text: str, indent: int) -> str:
    margin = " " * indent
    return textwrap.fill(text, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
