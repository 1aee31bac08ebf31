"""Mixtures: several sources read in turn by weight, so that the position says how far each source was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raysgd_local.control.data.apportionment import Ints, apportion

_PERIOD = 10_000  # positions after which the order repeats: no source has a smaller part than one in so many


@dataclass(frozen=True)
class Mixture:
    """Sources by weight. The order of picks is even: no source runs ahead of its weight by more than a few rows."""

    weights: tuple[float, ...]  # for each source, above 0
    seed: int  # not negative
    repeat: tuple[
        bool, ...
    ]  # for each source whether it begins anew when it ends; otherwise others go on without it


@dataclass(frozen=True)
class _Phase:
    """A stretch of the mixture in which the same sources are read."""

    begin: int  # position
    read: tuple[int, ...]  # rows of each source read before
    sources: tuple[int, ...]  # numbers of those that have not ended


def source_cursors(mixture: Mixture, cursor: int, totals: Sequence[int | None]) -> tuple[int, ...]:
    """Return the number of rows that were read of each source when `cursor` rows of the mixture were.

    `totals`: rows of each source; None if it is not known, because the source has not ended. If the mixture ends before
    the cursor (when all sources have ended that don't repeat), the counts are those at its end.

    >>> mixture = Mixture((3.0, 1.0), seed=7, repeat=(False, False))
    >>> [source_cursors(mixture, cursor, (None, 2)) for cursor in (4, 8, 100)]
    [(3, 1), (6, 2), (98, 2)]
    """
    *_, phase = _phases(mixture, cursor, totals)
    return phase.read if phase.begin == cursor or not _goes_on(mixture, phase) else _read(mixture, phase, cursor)


def next_source(mixture: Mixture, cursor: int, totals: Sequence[int | None]) -> int | None:
    """Return the number of the source that has the row at `cursor`; None if the mixture has ended.

    If the source turns out to have no more rows, its total is known; ask again.
    """
    *_, phase = _phases(mixture, cursor, totals)
    if not _goes_on(mixture, phase):
        return None
    picks, _ = _pattern(mixture, phase.sources)
    return phase.sources[int(picks[(cursor - phase.begin) % len(picks)])]


def _phases(mixture: Mixture, cursor: int, totals: Sequence[int | None]) -> Iterator[_Phase]:
    """Yield the phases that begin at `cursor` or before."""
    phase = _Phase(0, (0,) * len(mixture.weights), tuple(range(len(mixture.weights))))
    yield phase
    while _goes_on(mixture, phase):
        ends = {_end(mixture, phase, source, totals[source]): source for source in phase.sources}
        begin = min((end for end in ends if end is not None), default=cursor + 1)
        if begin > cursor:
            return
        left = tuple(source for source in phase.sources if source != ends[begin])
        phase = _Phase(begin, _read(mixture, phase, begin), left)
        yield phase


def _goes_on(mixture: Mixture, phase: _Phase) -> bool:
    """Whether a source is left that ends at some time, or all repeat."""
    return all(mixture.repeat) or not all(mixture.repeat[source] for source in phase.sources)


def _end(mixture: Mixture, phase: _Phase, source: int, total: int | None) -> int | None:
    """Return the position at which the source is to be read in vain for the first time."""
    if mixture.repeat[source] or total is None:
        return None
    picks, _ = _pattern(mixture, phase.sources)
    own = np.flatnonzero(picks == phase.sources.index(source))
    rounds, rest = divmod(total - phase.read[source], len(own))
    return phase.begin + rounds * len(picks) + int(own[rest])


def _read(mixture: Mixture, phase: _Phase, position: int) -> tuple[int, ...]:
    """Return the rows of each source read before a position of the phase."""
    picks, counts = _pattern(mixture, phase.sources)
    rounds, rest = divmod(position - phase.begin, len(picks))
    read = list(phase.read)
    for source, count in zip(phase.sources, (rounds * counts[-1] + counts[rest]).tolist(), strict=True):
        read[source] += count
    return tuple(read)


@lru_cache(maxsize=16)
def _pattern(mixture: Mixture, sources: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Return the picks of a period, as indices into `sources`, and the number of each one's picks before each."""
    weights = np.array([mixture.weights[source] for source in sources], dtype=np.float64)
    counts = np.maximum(apportion(_PERIOD, weights), 1)
    shifts = np.random.default_rng((mixture.seed, *sources)).random(len(sources))
    which = np.repeat(np.arange(len(sources)), counts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    picks = which[np.argsort((number + shifts[which]) / counts[which], kind="stable")]
    each = (picks[:, None] == np.arange(len(sources))).cumsum(axis=0)
    return picks, np.concatenate([np.zeros((1, len(sources)), dtype=np.int64), each])
