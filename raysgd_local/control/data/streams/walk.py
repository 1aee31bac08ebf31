"""Walk: the incremental plan of a rank's reader, which need not know how long the shards are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams.consumption import window_order, window_position
from raysgd_local.control.data.streams.deal import Pending, StreamDeal
from raysgd_local.control.data.streams.ranges import ROWS
from raysgd_local.control.data.streams.schedule import schedule
from raysgd_local.control.data.streams.spans import spans

_PENDING = -1  # number of the pending rows' window


class Turn(NamedTuple):
    """A row to read next."""

    span: int  # number of the span; −1 for a pending row
    shard: int
    row: int


@dataclass(slots=True)
class _Reading:
    """A turn of the round, and the span that has it."""

    span: int = -1  # −1: none was opened yet
    shard: int = -1
    row: int = 0  # to read next
    taken: int = 0  # rows that were read
    size: int = 0  # rows of the span; below 0: unknown


class Walk:
    """The order in which one rank reads rows and delivers them, window by window.

    Fill a window: read the row of `turn()`, and say `took()`, or `ended()` if the shard has no such row; until `turn()`
    is None. Then deliver the rows that were read by the numbers in `order()`, and begin the `next_window()`. The rows
    delivered up to any cursor are those of `consumption.consumed`. A row that is damaged counts as read, and as one of
    which no sample is made.

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> deal = StreamLedger.of([2, None]).open_epoch(0).deal(0, seed=7, shares=(1.0,), interleave=2, window=4)
    >>> walk, data = Walk(deal, 0, np.array([2, -1])), {0: "ab", 1: "vwxyz"}
    >>> delivered = []
    >>> while walk.next_window():
    ...     rows = []
    ...     while turn := walk.turn():
    ...         if turn.row < len(data[turn.shard]):
    ...             rows.append(data[turn.shard][turn.row])
    ...             walk.took()
    ...         else:
    ...             walk.ended()
    ...     delivered.append([rows[number] for number in walk.order()])
    >>> delivered, walk.found()
    ([['w', 'a', 'v', 'b'], ['z', 'y', 'x']], {1: 5})
    """

    def __init__(self, deal: StreamDeal, rank: int, lengths: Ints, cursor: int = 0) -> None:
        """Begin at `cursor`. `lengths`: of all shards; those of shards that ended before the cursor must be known."""
        self._deal, self._rank = deal, rank
        self._pending, self._spans = Pending.of(deal, rank), spans(deal, rank)
        self._ended: dict[int, int] = {}  # lengths found since the walk began
        here = window_position(deal, self._pending.count, cursor)
        self._sizes = self._spans.sizes(lengths)
        self._readings, self._next = self._begun(here.begin)
        in_pending = cursor < self._pending.count
        self._skip = here.pending if in_pending else here.inside
        self._window = (_PENDING if in_pending else here.window) - 1
        self._filled = 0

    def next_window(self) -> bool:
        """Begin the next window; False if the list has ended."""
        self._skip = 0 if self._filled else self._skip
        self._window, self._filled = self._window + 1, 0
        return self._window == _PENDING or self._open() is not None

    def turn(self) -> Turn | None:
        """Return the row to read next; None if the window is full or the list ends."""
        if self._window == _PENDING:
            return self._pending_turn()
        reading = self._open() if self._filled < self._deal.window else None
        return None if reading is None else Turn(reading.span, reading.shard, reading.row)

    def rounds(self) -> tuple[list[Turn], int]:
        """Return the turns of a round, the next one first, and how many rounds will go on as it does: maybe none.

        A row of such a round is one after that of the round before. A shard of unknown length may end earlier.
        """
        if self._window == _PENDING or any(reading.span in self._spans.holes for reading in self._readings):
            return [], 0
        left = (reading.size - reading.taken for reading in self._readings if reading.size >= 0)
        rounds = min([(self._deal.window - self._filled) // len(self._readings), *left])
        return [Turn(reading.span, reading.shard, reading.row) for reading in self._readings], rounds

    def took_rounds(self, rounds: int) -> None:
        """All rows of so many rounds were read."""
        self._filled += rounds * len(self._readings)
        for reading in self._readings:
            reading.taken += rounds
            reading.row += rounds

    def took(self) -> None:
        """The row of `turn` was read."""
        self._filled += 1
        if self._window != _PENDING:
            reading = self._readings[0]
            reading.taken += 1
            holes = reading.span in self._spans.holes
            reading.row = self._spans.row(reading.span, reading.taken) if holes else reading.row + 1
            self._readings.rotate(-1)

    def ended(self) -> None:
        """The shard of `turn` ended before its row."""
        turn = self.turn()
        if turn is None or turn.span < 0 or self._readings[0].size >= 0:
            raise RuntimeError(f"{turn} is of a shard that is longer, as far as was known")
        self._readings[0].size, self._ended[turn.shard] = self._readings[0].taken, turn.row

    @property
    def may_end(self) -> bool:
        """Whether the shard of `turn` may end before its row: its length is not known."""
        return self._readings[0].size < 0

    @property
    def ends_found(self) -> int:
        """Number of shards whose length was found out."""
        return len(self._ended)

    def found(self, told: int = 0) -> dict[int, int]:
        """Return the lengths that were unknown: of shards that have ended since, and bounds of those being read.

        Leave out the first `told` lengths. A worker tells them when it reports. With them every cursor up to here says
        which rows are consumed.
        """
        read = {reading.shard: -1 - reading.row for reading in self._readings if reading.size < 0}
        return read | dict(islice(self._ended.items(), told, None))

    def order(self) -> list[int]:
        """Return the numbers of the window's rows in the order to deliver them, without those before the cursor."""
        pending = self._window == _PENDING
        size = self._filled
        numbers = np.arange(size) if pending else window_order(self._deal, self._rank, self._window, size)
        return list(map(int, numbers[self._skip :]))

    def _pending_turn(self) -> Turn | None:
        if self._filled == self._pending.count:
            return None
        _, address = self._pending.at(self._filled)
        return Turn(-1, *divmod(address, ROWS))

    def _open(self) -> _Reading | None:
        """Return the reading that is in turn, after opening the next spans for readings that have ended."""
        while self._readings:
            reading = self._readings[0]
            if reading.taken != reading.size:
                return reading
            if self._next < len(self._spans):
                self._readings[0] = self._reading(self._next, 0)
                self._next += 1
            else:
                self._readings.popleft()
        return None

    def _reading(self, span: int, taken: int) -> _Reading:
        size = int(self._sizes[span])
        row = self._spans.row(span, taken) if taken != size else 0
        return _Reading(span, int(self._spans.shard[span]), row, taken, size)

    def _begun(self, position: int) -> tuple[deque[_Reading], int]:
        """Return the readings at a position, the one in turn first, and the number of the span to open next."""
        interleave = self._deal.interleave
        plan = schedule(self._sizes, interleave, position)
        if plan.unsure(position):
            raise RuntimeError("the lengths of shards that ended before the cursor must be known")
        time = plan.time_of(position)
        taken = plan.rows_at(time).tolist()
        last = {opened % interleave: index for index, opened in enumerate(plan.opened.tolist())}
        turns = (last.get((time + ahead) % interleave) for ahead in range(interleave))
        readings = (_Reading() if span is None else self._reading(span, taken[span]) for span in turns)
        return deque(readings), len(plan.opened)


def deliver(deal: StreamDeal, rank: int, lengths: Ints, cursor: int = 0) -> Iterator[int]:
    """Yield the addresses of the rank's rows from `cursor` on, in the order of consumption. All lengths are known.

    >>> from raysgd_local.control.data.streams.ledger import StreamLedger
    >>> deal = StreamLedger.of([3, 2]).open_epoch(0).deal(0, seed=7, shares=(1.0,), interleave=2, window=3)
    >>> [divmod(address, ROWS) for address in deliver(deal, 0, np.array([3, 2]), cursor=1)]
    [(1, 0), (0, 1), (0, 2), (1, 1)]
    """
    walk = Walk(deal, rank, lengths, cursor)
    while walk.next_window():
        rows: list[int] = []
        while turn := walk.turn():
            rows.append(turn.shard * ROWS + turn.row)
            walk.took()
        yield from (rows[number] for number in walk.order())
