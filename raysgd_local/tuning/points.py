"""Points of a space: a value for each key. They are drawn here, so that all can be checked before any trial starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from raysgd_local.errors import InputError
from raysgd_local.tuning.domains import MOST_POINTS, Choice, Domain, GridSearch, label

Point = dict[str, Any]
Space = Mapping[str, Domain]

_TRIES = 100  # draws per point: a small space may have fewer points than trials


def corners(space: Space) -> Iterator[Point]:
    """Yield the first corner of all keys, then this point with each other corner of one key."""
    first = {key: domain.corners[0] for key, domain in space.items()}
    yield first
    for key, domain in space.items():
        for value in domain.corners[1:]:
            yield {**first, key: value}


def drawn(space: Space, trials: int, seed: int) -> list[Point]:
    """Draw `trials` different random points, and combine each with every combination of the grid keys.

    Returns fewer if the space has no more. The same seed draws the same points.
    """
    random = Random(seed)
    grids = {key: domain for key, domain in space.items() if isinstance(domain, GridSearch)}
    others = {key: domain for key, domain in space.items() if key not in grids}
    wanted = min(trials, math.prod(domain.size for domain in others.values()))
    combinations = every(grids)
    _check_count(len(combinations) * wanted)
    found: dict[str, Point] = {}
    for _ in range(trials * _TRIES):
        point = {key: domain.sample(random) for key, domain in others.items()}
        found.setdefault(repr({key: label(value) for key, value in point.items()}), point)
        if len(found) >= wanted:
            break
    return [{**point, **combined} for point in found.values() for combined in combinations]


def every(space: Space) -> list[Point]:
    """Return every combination of the values. Raises `InputError` if a key has no list of values, or for too many."""
    for key, domain in space.items():
        if not isinstance(domain, Choice):
            allowed = "choice or grid_search with a list of values, with the searcher grid"
            raise InputError(f"space.{key}", [domain.low, domain.high], allowed)
    _check_count(math.prod(domain.size for domain in space.values()))
    values = [domain.corners for domain in space.values()]
    return [dict(zip(space, combined, strict=True)) for combined in itertools.product(*values)]


def _check_count(points: float) -> None:
    if points > MOST_POINTS:
        raise InputError("space", points, f"at most {MOST_POINTS:,} points")
