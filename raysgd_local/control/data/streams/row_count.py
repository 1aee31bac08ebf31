"""Row counts of transforms: which rows are consumed when a worker has stepped on some of the samples made of them.

A transform takes rows and gives samples: several of one row, one of several rows (a packer), or none (a filter). The
ledger counts rows. A row is consumed once steps were taken on every sample that was made of it, and none is still to
come: not when it is read, and not when a sample is fetched ahead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class RowsConsumed:
    """The rows behind some number of samples."""

    rows: int  # leading rows of the list that are consumed: the worker's cursor
    split: (
        int  # rows after them that are in those samples nevertheless; if they are dealt again, parts are repeated
    )


class RowCount:
    """The samples that a transform gave, and the rows in each of them; rows are numbered as the worker reads them.

    A packer makes samples of rows 0 and 1, then of the rest of row 1 and row 2; row 3 is filtered out, row 4 is whole:

    >>> count = RowCount()
    >>> count.emitted([0, 1], complete=1)  # of row 1 another sample is still to come
    >>> count.emitted([1, 2], complete=3)
    >>> count.emitted([4], complete=5)
    >>> [(count.after(samples).rows, count.after(samples).split) for samples in range(4)]
    [(0, 0), (1, 1), (3, 0), (5, 0)]

    Filtered rows count with the next sample after them, or with the end of the list:

    >>> count.ended(7)
    >>> count.after(3).rows
    7
    """

    def __init__(self, start: int = 0) -> None:
        """Begin before the row `start`; samples are counted from here."""
        self._forgotten = 0  # samples that are committed
        self._complete = [start]  # leading rows that are consumed after these samples, and after each one more
        self._split: list[frozenset[int]] = [frozenset()]  # rows beyond those that are in these samples
        self._end: int | None = None

    def emitted(self, rows: Iterable[int], complete: int) -> None:
        """A sample was made of `rows`.

        `complete`: number of leading rows of which no sample is to come after this one. If a transform can't tell, it
        has to look ahead: a row that seems unfinished would be dealt again.
        """
        self._complete.append(complete)
        self._split.append(frozenset(row for row in self._split[-1].union(rows) if row >= complete))

    def ended(self, rows: int) -> None:
        """The list ended after so many rows, and no sample is to come."""
        self._end = rows

    @property
    def samples(self) -> int:
        """Number of samples that were emitted, stepped on or not."""
        return self._forgotten + len(self._complete) - 1

    def after(self, samples: int) -> RowsConsumed:
        """Return the rows that are consumed when steps were taken on the first `samples` samples."""
        index = samples - self._forgotten
        if not 0 <= index < len(self._complete):
            raise ValueError(
                f"{samples} samples: neither fewer than {self._forgotten} nor more than {self.samples}"
            )
        if samples == self.samples and self._end is not None:
            return RowsConsumed(self._end, 0)
        return RowsConsumed(self._complete[index], len(self._split[index]))

    def forget(self, samples: int) -> None:
        """Drop the counts below `samples`, which are committed."""
        index = samples - self._forgotten
        del self._complete[:index], self._split[:index]
        self._forgotten = samples
