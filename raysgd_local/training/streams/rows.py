"""Read the rows of a worker's list, in the order of its walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.walk import Turn, Walk
from raysgd_local.errors import ShardError
from raysgd_local.sources.source import Source

_END = object()
_SKIPPED = 64  # rows that are read and dropped rather than opening the shard anew


class _OpenShard:
    """An iterator over a shard's rows, those of them that were read ahead, and the number of the next one."""

    def __init__(self, source: Source, shard: str) -> None:
        self._source, self._shard = source, shard
        self._rows: Iterator[Any] = iter(())
        self._ahead: list[Any] = []
        self._next = -1  # not open

    def ready(self, number: int, count: int) -> int:
        """Read ahead up to `count` rows from `number` on. Return how many there are: fewer where the shard ends."""
        if not 0 <= number - self._next <= _SKIPPED or self._next < 0:
            self._rows, self._next, self._ahead = iter(self._source.open(self._shard, number)), number, []
        wanted = number - self._next + count
        self._ahead.extend(islice(self._rows, max(0, wanted - len(self._ahead))))
        self.take(number - self._next)
        return min(count, len(self._ahead))

    def take(self, count: int) -> list[Any]:
        """Return the next rows, which are ready."""
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        self._next += count
        return taken

    def row(self, number: int) -> Any:
        """Return a row, or `_END` if the shard ends before it."""
        return self.take(1)[0] if self.ready(number, 1) else _END


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
        self._window: list[Any] = []  # values of the window, in the order of delivery
        self._delivered = 0  # of these

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values. Raises `ShardError`."""
        while values := self.take(1):
            yield from values

    def take(self, most: int) -> list[Any]:
        """Return the next values of one window, at least one and at most `most`; none if the list has ended.

        Raises `ShardError`.
        """
        while self._delivered == len(self._window):
            if not self._walk.next_window():
                return []
            values = self._read_window()
            self._window, self._delivered = [values[number] for number in self._walk.order()], 0
        taken = self._window[self._delivered : self._delivered + most]
        self._delivered += len(taken)
        return taken

    def _read_window(self) -> list[Any]:
        values: list[Any] = []
        while (turn := self._walk.turn()) is not None:
            if block := self._block():
                values += block
                continue
            value = self._shard(turn).row(turn.row)
            if value is _END:
                self._end(turn)
            else:
                values.append(value)
                self._walk.took()
        return values

    def _block(self) -> list[Any]:
        """Return the values of several rounds of turns, read shard by shard: row by row takes much longer."""
        turns, rounds = self._walk.rounds()
        if rounds < 2:
            return []
        shards = [self._shard(turn) for turn in turns]
        rounds = min(shard.ready(turn.row, rounds) for shard, turn in zip(shards, turns, strict=True))
        values: list[Any] = [None] * (rounds * len(turns))
        for place, shard in enumerate(shards):
            values[place :: len(turns)] = shard.take(rounds)
        self._walk.took_rounds(rounds)
        return values

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
