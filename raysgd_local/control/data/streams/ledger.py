"""The ledger of a stream: which rows of each open epoch were trained on, how long shards are, and counts of errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.deal import EpochAhead, StreamDeal
from raysgd_local.control.data.streams.lengths import UNKNOWN, encode_lengths, with_lengths
from raysgd_local.control.data.streams.parts import consumed_by_epoch, needed_in, parts
from raysgd_local.control.data.streams.ranges import MOST_SHARDS, ROWS, Ranges
from raysgd_local.control.data.streams.shards import Shards


@dataclass(frozen=True)
class OpenEpoch:
    """The rows of an epoch that resolved rounds have consumed."""

    epoch: int
    finished: bytes  # flag of each shard: all its rows are consumed, as far as was known when a deal was closed
    begun: bytes  # consumed rows of other shards (see `Ranges.encode`)


@dataclass(frozen=True)
class StreamLedger:
    """The rows that resolved rounds have consumed. Rounds that failed don't count.

    >>> ledger = StreamLedger.of([4, None]).open_epoch(0)
    >>> deal = ledger.deal(0, seed=7, shares=(1.0, 1.0))
    >>> ledger.lengths_needed(deal, cursors=(2, 1)), ledger.close(deal, (2, 1), {1: 3}).remaining(0)
    ({1: 1}, 4)
    """

    names: str = ""  # of the source (see `Shards.names`)
    shards: int = 0  # of the source
    lengths: bytes = b""  # table of 1 + length for each shard; 0: unknown
    open: tuple[OpenEpoch, ...] = ()  # usually one; where rounds go across epochs, all that workers have begun
    deals: int = 0  # deals made since the run began
    rows_lost: int = 0  # in no resolved round when their epoch closed; over all epochs
    rows_repeated: int = 0  # repetitions of rows within an epoch; over all epochs
    rows_split: int = 0  # read twice, of which samples that were trained on had a part; over all epochs
    shards_unread: int = 0  # of unknown length, not read to their end when their epoch closed; over all epochs

    @staticmethod
    def of(lengths: Iterable[int | None]) -> StreamLedger:
        """Return the ledger of a source with shards of these lengths; None: unknown."""
        table = np.array([0 if length is None else 1 + length for length in lengths], dtype=np.int64)
        if len(table) > MOST_SHARDS or table.max(initial=0) > ROWS:
            raise ValueError(f"{len(table)} shards of up to {table.max() - 1} rows: too many for an address")
        return StreamLedger(shards=len(table), lengths=coding.encode_table(table))

    @staticmethod
    def of_shards(shards: Shards, before: StreamLedger | Ledger) -> StreamLedger:
        """Return the ledger of a source, with the counts of the ledger before."""
        fresh = StreamLedger.of(length if length >= 0 else None for length in shards.known_lengths().tolist())
        stream = before if isinstance(before, StreamLedger) else StreamLedger()
        return replace(
            fresh,
            names=shards.names,
            deals=before.deals,
            rows_lost=before.samples_lost,
            rows_repeated=before.samples_repeated,
            rows_split=stream.rows_split,
            shards_unread=stream.shards_unread,
        )

    @property
    def epoch(self) -> int | None:
        """The first open epoch; None if none is open."""
        return self.open[0].epoch if self.open else None

    @property
    def samples_lost(self) -> int:
        """What tables call lost samples: here they are rows."""
        return self.rows_lost

    @property
    def samples_repeated(self) -> int:
        """What tables call repeated samples: here they are rows."""
        return self.rows_repeated

    @property
    def next_deal_number(self) -> int:
        return self.deals + 1

    def known_lengths(self) -> Ints:
        """Return each shard's length, UNKNOWN where no worker has read it to its end."""
        return coding.decode_table(self.lengths) - 1

    def learn(self, lengths: Mapping[int, int]) -> StreamLedger:
        """Return the ledger with these lengths of shards; bounds are ignored.

        Raises ValueError if a length differs from the known one.
        """
        before = self.known_lengths()
        exact = {shard: length for shard, length in lengths.items() if length >= 0}
        for shard, length in exact.items():
            if before[shard] not in (UNKNOWN, length):
                raise ValueError(f"shard {shard} has {length} rows; it had {before[shard]}")
        if all(before[shard] >= 0 for shard in exact):
            return self
        return replace(self, lengths=coding.encode_table(with_lengths(before, exact) + 1))

    def remaining(self, epoch: int) -> int | None:
        """Number of rows of the open epoch that are in no resolved round yet; None if a length is unknown."""
        rows, unread = self._left(self._opened(epoch))
        return None if unread else rows

    def consumed_rows(self, epoch: int) -> int:
        """Number of rows of the open epoch that are in a resolved round."""
        book = self._opened(epoch)
        lengths = self.known_lengths()
        return int(lengths[coding.decode_flags(book.finished)].sum()) + Ranges.decode(book.begun).count

    def open_epoch(self, epoch: int) -> StreamLedger:
        """Return the ledger with `epoch` open, none of its rows consumed. Raises RuntimeError if it is open."""
        if any(book.epoch == epoch for book in self.open):
            raise RuntimeError(f"epoch {epoch} is open")
        return replace(self, open=(*self.open, self._fresh(epoch)))

    def deal(
        self,
        epoch: int,
        seed: int,
        shares: tuple[float, ...],
        pending: Sequence[Ranges] = (),
        interleave: int = 1,
        window: int = 1,
        holders: Sequence[Sequence[int]] = (),
        local_data: bool = False,
        epochs: int = 0,
        left: tuple[int, ...] = (),
        later_pending: Sequence[Sequence[Ranges]] = (),
    ) -> StreamDeal:
        """Return the deal of the open epoch's rest to ranks. `dealt` counts it.

        `pending`: for each rank the rows of its uncommitted steps. `holders`: for each shard the ranks near its bytes.
        Only where rounds go across epochs: `epochs`, of the run; `left`, for each rank the first epoch of which it
        takes new rows; `later_pending`, rows of uncommitted steps for each of the next epochs, by rank.
        """
        book, lengths = self._opened(epoch), self.known_lengths()
        finished = coding.decode_flags(book.finished)
        table, longest = encode_lengths(lengths if epochs else lengths[~finished])
        sets = sorted({tuple(ranks) for ranks in holders if ranks})
        number = {ranks: index + 1 for index, ranks in enumerate(sets)}
        held_by = [number.get(tuple(ranks), 0) for ranks in holders]
        return StreamDeal(
            number=self.next_deal_number,
            epoch=epoch,
            seed=seed,
            names=self.names,
            shards=self.shards,
            finished=book.finished,
            begun=book.begun,
            lengths=table,
            shares=shares,
            pending=tuple(rows.encode() if rows else b"" for rows in pending or [Ranges()] * len(shares)),
            interleave=interleave,
            window=window,
            longest=longest,
            typical=int(np.ceil(lengths[lengths >= 0].mean())) if (lengths >= 0).any() else 0,
            holders=tuple(sets),
            held_by=coding.encode_table(np.array(held_by, dtype=np.int64)) if sets else b"",
            local_data=local_data,
            epochs=epochs,
            ahead=self._ahead(epoch, later_pending) if epochs else (),
            later_pending=tuple(tuple(rows.encode() if rows else b"" for rows in row) for row in later_pending),
            left=left or (0,) * len(shares) if epochs else (),
            of_all=epochs > 0,
        )

    def _ahead(self, epoch: int, pending: Sequence[Sequence[Ranges]]) -> tuple[EpochAhead, ...]:
        """Return the epochs after `epoch` of which rows are consumed or pending, and one of which none is."""
        begun = max((book.epoch for book in self.open), default=epoch)
        following = range(epoch + 1, max(begun, epoch + len(pending)) + 2)
        taken = dict(zip(following, pending, strict=False))
        books = ((self._book(later), taken.get(later, ())) for later in following)
        return tuple(EpochAhead(book.finished, _with_more(book.begun, more)) for book, more in books)

    def dealt(self) -> StreamLedger:
        """Return the ledger after the deal with `next_deal_number` was made."""
        return replace(self, deals=self.deals + 1)

    def lengths_needed(
        self, deal: StreamDeal, cursors: Sequence[int], lengths: Mapping[int, int] | None = None
    ) -> dict[int, int]:
        """Return the unknown lengths without which `close` can't say which rows are consumed (see `needed`)."""
        known = with_lengths(self.known_lengths(), lengths or {})
        epochs, found = self._of(deal), dict[int, int]()
        for rank, cursor in enumerate(cursors):
            for shard, rows in needed_in(deal, rank, cursor, known, epochs).items():
                found[shard] = max(rows, found.get(shard, 0))
        return found

    def close(
        self, deal: StreamDeal, cursors: Sequence[int], lengths: Mapping[int, int] | None = None
    ) -> StreamLedger:
        """Mark each list of `deal` as consumed up to its rank's cursor, the end of the resolved rounds.

        `lengths`: those that workers found out since the last deal (see `Walk.found`). Bounds are used and forgotten.
        Raises RuntimeError if the deal's epoch is not open, or if lengths are needed (see `lengths_needed`).
        """
        ledger = self.learn(lengths or {})
        books, repeated = ledger._with_rows(deal, cursors, lengths or {}, self._of(deal))
        after = {book.epoch: book for book in (*ledger.open, *books)}
        ordered = tuple(after[epoch] for epoch in sorted(after))
        return replace(ledger, open=ordered, rows_repeated=self.rows_repeated + repeated)

    def pass_to(
        self, epoch: int, deal: StreamDeal, cursors: Sequence[int], lengths: Mapping[int, int] | None = None
    ) -> StreamLedger:
        """Close the epochs before `epoch`, which becomes the open one. The deal goes on.

        Rows that are in no resolved round count as lost. Raises RuntimeError as `close` does.
        """
        if self.epoch is None or epoch <= self.epoch:
            return self
        ledger = self.learn(lengths or {})
        closed, left = range(self.epoch, epoch), tuple(book for book in self.open if book.epoch > epoch)
        books, repeated = ledger._with_rows(deal, cursors, lengths or {}, closed)
        over = {later: ledger._book(later) for later in closed} | {book.epoch: book for book in books}
        ledger = ledger._counted(tuple(over.values()))
        return replace(ledger, open=(ledger._book(epoch), *left), rows_repeated=self.rows_repeated + repeated)

    def close_epoch(
        self, deal: StreamDeal, cursors: Sequence[int], lengths: Mapping[int, int] | None = None
    ) -> StreamLedger:
        """Enter the epoch's last deal and close the epoch. Rows that are in no resolved round count as lost."""
        ledger = self.close(deal, cursors, lengths)
        over = tuple(book for book in ledger.open if book.epoch in self._of(deal))
        left = tuple(book for book in ledger.open if book not in over)
        return replace(ledger._counted(over), open=left)

    def _of(self, deal: StreamDeal) -> range:
        """Return the epochs of the deal that are not closed yet."""
        first = self.epoch if deal.epochs and self.epoch is not None else deal.epoch
        if first < deal.epoch or not any(book.epoch == first for book in self.open):
            raise RuntimeError(f"epoch {deal.epoch} is not open: {[book.epoch for book in self.open]} are")
        return range(first, deal.epoch + parts(deal))

    def _with_rows(
        self, deal: StreamDeal, cursors: Sequence[int], lengths: Mapping[int, int], epochs: range
    ) -> tuple[tuple[OpenEpoch, ...], int]:
        """Return the books of these epochs with the rows before the cursors, and how many of these are repeated."""
        known, rows = with_lengths(self.known_lengths(), lengths), dict[int, list[Ranges]]()
        for rank in range(len(deal.shares)):
            for epoch, own in consumed_by_epoch(deal, rank, cursors[rank], known, epochs).items():
                rows.setdefault(epoch, []).append(own)
        whole = self.known_lengths()
        entered = [_entered(self._book(epoch), own, whole) for epoch, own in rows.items()]
        return tuple(book for book, _ in entered), sum(repeated for _, repeated in entered)

    def _counted(self, over: Sequence[OpenEpoch]) -> StreamLedger:
        """Return the ledger that counts what is left of epochs that are over."""
        left = [self._left(book) for book in over]
        lost, unread = self.rows_lost + sum(rows for rows, _ in left), sum(shards for _, shards in left)
        return replace(self, rows_lost=lost, shards_unread=self.shards_unread + unread)

    def _fresh(self, epoch: int) -> OpenEpoch:
        return OpenEpoch(epoch, coding.encode_flags(self.known_lengths() == 0), b"")

    def _book(self, epoch: int) -> OpenEpoch:
        """Return what was consumed of an epoch, which may not have been begun yet."""
        return next((book for book in self.open if book.epoch == epoch), self._fresh(epoch))

    def _opened(self, epoch: int) -> OpenEpoch:
        for book in self.open:
            if book.epoch == epoch:
                return book
        raise RuntimeError(f"epoch {epoch} is not open: {[book.epoch for book in self.open]} are")

    def _left(self, book: OpenEpoch) -> tuple[int, int]:
        """Return the rows of shards of known length that are not consumed, and the number of other shards."""
        left = self.known_lengths()
        left[coding.decode_flags(book.finished)] = 0
        shards, counts = Ranges.decode(book.begun).shard_counts()
        begun = left[shards] >= 0
        left[shards[begun]] -= counts[begun]
        return int(left[left > 0].sum()), int((left < 0).sum())


def _with_more(begun: bytes, more: Sequence[Ranges]) -> bytes:
    rows = Ranges.decode(begun)
    for own in more:
        rows |= own
    return rows.encode() if rows else b""


def _entered(book: OpenEpoch, entered: Sequence[Ranges], lengths: Ints) -> tuple[OpenEpoch, int]:
    """Return the epoch with more rows consumed, and how many of them were consumed before or are there twice."""
    parts = [Ranges.decode(book.begun), *entered]
    starts, stops = [part.starts for part in parts], [part.stops for part in parts]
    finished = coding.decode_flags(book.finished)
    union = Ranges.between_all(np.concatenate(starts), np.concatenate(stops))
    rows = union.without_shards(np.flatnonzero(finished))
    shards, counts = rows.shard_counts()
    ended = shards[counts == lengths[shards]]
    flags = finished | (lengths == 0)
    flags[ended] = True
    after = OpenEpoch(book.epoch, coding.encode_flags(flags), rows.without_shards(ended).encode())
    return after, sum(part.count for part in parts) - rows.count
