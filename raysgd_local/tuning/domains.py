"""Domains of the keys of a sweep's space, in Ray Tune's terms, without Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import yaml

from raysgd_local.algorithms import validation
from raysgd_local.errors import InputError, nearest


@dataclass(frozen=True)
class Choice:
    """One of these values. A mapping sets a whole section of the configuration."""

    values: tuple[Any, ...]

    @property
    def corners(self) -> tuple[Any, ...]:
        """Extreme values: if all of them are valid, all values of the domain are."""
        return self.values

    @property
    def size(self) -> float:
        """The number of different values, at most."""
        return len(self.values)

    def sample(self, random: Random) -> Any:
        return random.choice(self.values)


class GridSearch(Choice):
    """Each of these values, combined with every point of the other keys."""


@dataclass(frozen=True)
class Span:
    """Numbers from `low` to `high`, drawn uniformly."""

    low: float
    high: float  # excluded if `whole`, as in Tune
    whole: bool = False  # integers
    log: bool = False  # uniform in the logarithm
    q: float | None = None  # multiples of this

    @property
    def corners(self) -> tuple[float, ...]:
        return (self.low, self.high - 1) if self.whole else (self.low, self.high)

    @property
    def size(self) -> float:
        """The number of different values, at most."""
        return self.high - self.low if self.whole else math.inf

    def sample(self, random: Random) -> float:
        if self.whole and not self.log:
            return random.randrange(int(self.low), int(self.high))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = random.uniform(low, high)
        drawn = min(self.high, max(self.low, math.exp(drawn))) if self.log else drawn
        if self.whole:
            return int(min(drawn, self.high - 1))
        return drawn if self.q is None else min(self.high, max(self.low, round(drawn / self.q) * self.q))


Domain = Choice | Span

SPANS: Mapping[str, Mapping[str, Any]] = {
    "uniform": {},
    "quniform": {},
    "loguniform": {"log": True},
    "randint": {"whole": True},
    "lograndint": {"whole": True, "log": True},
}
MOST_POINTS = 10_000
LISTS: Mapping[str, type[Choice]] = {"choice": Choice, "grid_search": GridSearch}
TERMS = (*LISTS, *SPANS)
ALLOWED = f"a mapping with one of {', '.join(TERMS)} and a list: {{choice: [2, 8]}}, {{uniform: [0.1, 1]}}"


def parse(plain: Any, field: str) -> Domain:
    """Build a domain from a mapping with one term. Raises `InputError` of `field`.

    >>> parse({"randint": [1, 9]}, "space.algorithm.schedule.tau0").corners
    (1, 8)
    """
    if isinstance(plain, Choice | Span):
        return plain
    if not isinstance(plain, Mapping) or len(plain) != 1:
        raise InputError(field, plain, ALLOWED)
    ((term, values),) = plain.items()
    if term not in TERMS:
        raise InputError(field, term, f"one of {', '.join(TERMS)}", nearest(term, TERMS))
    if not isinstance(values, list | tuple) or not values:
        raise InputError(f"{field}.{term}", values, "a list of values")
    if term in LISTS:
        if len(values) > MOST_POINTS:
            raise InputError(f"{field}.{term}", values, f"a list of at most {MOST_POINTS:,} values")
        return LISTS[term](tuple(values))
    return _span(term, values, f"{field}.{term}")


def _span(term: str, values: Any, field: str) -> Span:
    options = SPANS[term]
    kind = int if options.get("whole") else (int, float)
    length = 3 if term == "quniform" else 2
    if len(values) != length or not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        parts = "lowest, highest, step" if length == 3 else "lowest, one more than the highest"
        allowed = f"[{parts}], whole numbers" if options.get("whole") else f"[{parts}], numbers"
        raise InputError(
            field, list(values), allowed if length == 3 or options.get("whole") else "[lowest, highest]"
        )
    for value in values:
        validation.number(field, value)
    span = Span(values[0], values[1], q=values[2] if length == 3 else None, **options)
    if not span.low < span.high or not math.isfinite(span.high - span.low):
        raise InputError(field, list(values), "the lowest value first, and a higher one after it")
    if span.log and span.low <= 0:
        raise InputError(field, list(values), "numbers above 0: their logarithm is drawn")
    if span.q is not None and (span.q <= 0 or not math.isfinite(max(abs(span.low), abs(span.high)) / span.q)):
        raise InputError(field, list(values), "a step above 0")
    return span


def plain(domain: Domain) -> dict[str, list[Any]]:
    """Convert a domain to a mapping: the inverse of `parse`.

    >>> plain(parse({"loguniform": [0.5, 2]}, "space.x"))
    {'loguniform': [0.5, 2]}
    """
    if isinstance(domain, Choice):
        return {next(term for term, kind in LISTS.items() if type(domain) is kind): list(domain.values)}
    if domain.q is not None:
        return {"quniform": [domain.low, domain.high, domain.q]}
    options = {name: True for name in ("whole", "log") if getattr(domain, name)}
    return {next(term for term, given in SPANS.items() if given == options): [domain.low, domain.high]}


def label(value: Any) -> Any:
    """Convert a value to a number or text for searchers, tables and charts: mappings and lists to one line of YAML.

    >>> label({"kind": "fixed", "tau": 8}), label(0.5)
    ('{kind: fixed, tau: 8}', 0.5)
    """
    if isinstance(value, dict | list | tuple):
        text: str = yaml.safe_dump(
            value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
        )
        return text.strip()
    return value


def told(value: Any) -> Any:
    """Format a value for people: a section as its kind and settings, other values as their label.

    >>> told({"schedule": {"kind": "fixed", "tau": 8}, "outer": {"kind": "slowmo", "beta": 0.2}})
    'fixed, tau 8; slowmo, beta 0.2'
    """
    if not isinstance(value, Mapping):
        return label(value)
    sections = [one for one in value.values() if isinstance(one, Mapping)]
    own = [(key, one) for key, one in value.items() if not isinstance(one, Mapping)]
    words = ", ".join(str(one) if key == "kind" else f"{key} {label(one)}" for key, one in own)
    return "; ".join(part for part in (words, *map(told, sections)) if part)


def unlabelled(domain: Domain, found: Any) -> Any:
    """Return the value with this label: the inverse of `label`."""
    if not isinstance(domain, Choice):
        return found
    return next((value for value in domain.values if label(value) == found), found)
