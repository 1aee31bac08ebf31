"""Read the rows of a worker's list, in the order of its walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.walk import Turn, Walk
from raysgd_local.errors import ShardError
from raysgd_local.sources.source import Source

_END = object()
_SKIPPED = 64  # rows that are read and dropped rather than opening the shard anew


class _OpenShard:
    """An iterator over a shard's rows, and the number of the next one."""

    def __init__(self, source: Source, shard: str) -> None:
        self._source, self._shard = source, shard
        self._rows: Iterator[Any] = iter(())
        self._next = -1  # not open

    def row(self, number: int) -> Any:
        """Return a row, or `_END` if the shard ends before it."""
        if not 0 <= number - self._next <= _SKIPPED or self._next < 0:
            self._rows, self._next = iter(self._source.open(self._shard, number)), number
        value = _END
        while self._next <= number:
            value = next(self._rows, _END)
            self._next += 1
            if value is _END:
                self._next = -1
                break
        return value


class ListRows:
    """The rows of rank's list in a deal, from a cursor on.

    `lengths`: of all shards, −1 where unknown; those of shards that ended before the cursor must be known.
    """

    def __init__(
        self, source: Source, names: Sequence[str], deal: StreamDeal, rank: int, lengths: Ints, cursor: int
    ) -> None:
        self._source, self._names, self._deal = source, names, deal
        self._walk = Walk(deal, rank, lengths, cursor)
        self._open: dict[int, _OpenShard] = {}  # by span
        self._told = 0  # lengths that `news` has returned
        self._pending: tuple[int, _OpenShard] | None = None  # shard of the newest pending row

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values, window by window. Raises `ShardError`."""
        while self._walk.next_window():
            window = []
            while (turn := self._walk.turn()) is not None:
                value = self._shard(turn).row(turn.row)
                if value is _END:
                    self._end(turn)
                else:
                    window.append(value)
                    self._walk.took()
            for number in self._walk.order():
                yield window[number]

    def _shard(self, turn: Turn) -> _OpenShard:
        if turn.span >= 0:
            if turn.span not in self._open:
                self._open[turn.span] = _OpenShard(self._source, self._names[turn.shard])
            return self._open[turn.span]
        if self._pending is None or self._pending[0] != turn.shard:
            self._pending = turn.shard, _OpenShard(self._source, self._names[turn.shard])
        return self._pending[1]

    def _end(self, turn: Turn) -> None:
        self._open.pop(turn.span, None)
        if turn.span < 0 or not self._walk.may_end:
            raise ShardError(self._names[turn.shard], turn.row, "it ends here, and was longer before")
        self._walk.ended()

    def news(self) -> dict[int, int]:
        """Return the lengths that were found out since the last call, and bounds (see `Walk.found`)."""
        news = self._walk.found(self._told)
        self._told = self._walk.ends_found
        return news
