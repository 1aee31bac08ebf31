"""Transforms: what makes samples of rows. They run where rows are read: in a DataLoader's process, if there is one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from raysgd_local.errors import InputError


@runtime_checkable
class Transform(Protocol):
    """A transform that keeps something of its inputs: it makes one sample of several rows, for example (`Pack`).

    A function needs none of this: it gives a sample for each row, or None for a row that is left out.
    """

    def add(self, item: Any) -> Iterable[Any]:
        """Take an input, and return the samples that are complete now."""

    def held(self) -> int:
        """Return the number of inputs, counted from the newest back to the oldest of which a part is kept."""

    def end(self) -> Iterable[Any]:
        """Return the samples that are left when there are no more inputs. Begin anew after that."""


Step = Callable[[Any], Any] | Transform


class Chain:
    """Transforms one after the other, and the rows of which some still keep a part.

    >>> chain = Chain([str.split, lambda words: words if len(words) > 1 else None])
    >>> chain.feed(0, "a b"), chain.feed(1, "c"), chain.oldest
    ([['a', 'b']], [], None)
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)
        self._keeps = [isinstance(step, Transform) for step in self._steps]  # asked once: it takes long
        self._kept: list[deque[int]] = [deque() for _ in self._steps]  # rows of the inputs that are held, by step

    @property
    def keeps(self) -> bool:
        """Whether a transform may keep a part of a row."""
        return any(self._keeps)

    @property
    def oldest(self) -> int | None:
        """The oldest row of which a transform keeps a part; None if there is none."""
        return min((rows[0] for rows in self._kept if rows), default=None)

    def feed(self, row: int, value: Any) -> list[Any]:
        """Return the samples that a row completes."""
        return self._feed(0, row, value)

    def each(self, values: Sequence[Any]) -> list[tuple[int, Any]]:
        """Return the samples of rows with each one's place in `values`, where nothing is kept of any (see `keeps`)."""
        made = list(enumerate(values))
        for step in cast("Sequence[Callable[[Any], Any]]", self._steps):
            made = [(place, sample) for place, value in made if (sample := step(value)) is not None]
        return made

    def end(self) -> list[Any]:
        """Return the samples that are left when there are no more rows."""
        found: list[Any] = []
        for place, step in enumerate(self._steps):
            if self._keeps[place]:
                for value in cast("Transform", step).end():
                    found += self._feed(place + 1, 0, value)
                self._kept[place].clear()
        return found

    def _feed(self, place: int, row: int, value: Any) -> list[Any]:
        if place == len(self._steps):
            return [value]
        if not self._keeps[place]:
            made = cast("Callable[[Any], Any]", self._steps[place])(value)
            return [] if made is None else self._feed(place + 1, row, made)
        step, kept = cast("Transform", self._steps[place]), self._kept[place]
        kept.append(row)
        first = kept[0]
        found = [sample for made in step.add(value) for sample in self._feed(place + 1, first, made)]
        for _ in range(len(kept) - step.held()):
            kept.popleft()
        return found


def checked(transform: Any) -> tuple[Step, ...]:
    """Return the steps of what a user gives as `transform`: one or several. Raises `InputError` for others."""
    steps = () if transform is None else tuple(transform) if isinstance(transform, list | tuple) else (transform,)
    for step in steps:
        if not callable(step) and not isinstance(step, Transform):
            allowed = "a function of a row, a Transform (such as Pack), or a list of these"
            raise InputError("transform", type(step).__name__, allowed)
    return steps
