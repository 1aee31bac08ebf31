"""Workers that come and go while they read a stream row by row: the truth against which the stream's ledger is held.

Rows are read from shards whose lengths the workers find out. A transform makes pieces of each row (none, one or more)
and packs the pieces into samples. The fleet notes for each piece how often a committed step was taken on it, and for
each row whether the ledger should have it, one by one.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from raysgd_local.control.data.streams import coding
from raysgd_local.control.data.streams.consumption import list_length, needed, taken_between
from raysgd_local.control.data.streams.deal import StreamDeal
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import UNKNOWN, merged, with_lengths
from raysgd_local.control.data.streams.lines import unknown_needed
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.row_count import RowCount
from raysgd_local.control.data.streams.walk import Walk
from raysgd_local.serialization import from_plain, to_plain


@dataclass(frozen=True)
class Transform:
    """Makes `pieces` of each row, 0 for a row that is filtered out, and samples of `pack` pieces."""

    most_pieces: int
    filters: bool
    pack: int

    def pieces(self, address: int) -> int:
        least = 0 if self.filters else 1
        return least + hash((address, 1)) % (self.most_pieces - least + 1)

    @property
    def splits(self) -> bool:
        return self.most_pieces > 1


class Reader:
    """One rank's reading of one deal, from a cursor: rows, the samples made of them, and the count of both."""

    def __init__(self, deal, rank, known, lengths, transform, cursor):
        self.walk, self.lengths, self.transform = Walk(deal, rank, known, cursor), lengths, transform
        self.delivered = []  # addresses, in the order of consumption
        self.samples = []  # each a list of (address, piece)
        self.count = RowCount()
        self._rows = self._read()
        self._emitting = self._emit()

    def fetch(self, samples: int) -> None:
        for _ in zip(range(samples), self._emitting, strict=False):
            pass

    def _read(self):
        while self.walk.next_window():
            rows = []
            while turn := self.walk.turn():
                if turn.row < self.lengths[turn.shard]:
                    rows.append(turn.shard * ROWS + turn.row)
                    self.walk.took()
                else:
                    self.walk.ended()
            for number in self.walk.order():
                self.delivered.append(rows[number])
                yield rows[number]

    def _emit(self):
        sample, numbers = [], []
        for number, address in enumerate(self._rows):
            pieces = self.transform.pieces(address)
            for piece in range(pieces):
                sample.append((address, piece))
                numbers.append(number)
                if len(sample) == self.transform.pack:
                    yield self._emitted(sample, numbers, complete=number + (piece + 1 == pieces))
                    sample, numbers = [], []
        if sample:
            yield self._emitted(sample, numbers, complete=len(self.delivered))
        self.count.ended(len(self.delivered))

    def _emitted(self, sample, numbers, complete):
        self.samples.append(sample)
        self.count.emitted(numbers, complete)


@dataclass
class Worker:
    """What a worker keeps from view to view."""

    found: dict = field(default_factory=dict)  # lengths and bounds
    pending: Ranges = field(default_factory=Ranges)
    steps: list = field(default_factory=list)  # pieces of uncommitted steps


class StreamFleet:
    """A run of several epochs over a random source, with deaths, joins and deals at random moments."""

    def __init__(self, seed: int, transform: Transform | None = None) -> None:
        self.rng = rng = np.random.default_rng(seed)
        shards = int(rng.integers(1, 12))
        longest = int(rng.choice([2, 6, 40]))
        self.lengths = [int(x) for x in rng.integers(0, longest + 1, shards)]
        known = rng.random(shards) < rng.choice([0.0, 0.5, 1.0])
        self.ledger = StreamLedger.of(n if k else None for n, k in zip(self.lengths, known, strict=True))
        self.transform = transform or Transform(
            int(rng.integers(1, 4)), bool(rng.integers(0, 2)), int(rng.integers(1, 4))
        )
        self.interleave, self.window = int(rng.integers(1, 5)), int(rng.choice([1, 2, 5, 16]))
        self.holds = bool(rng.integers(0, 2))
        self.workers = [Worker() for _ in range(rng.integers(1, 5))]
        self.trained: Counter = Counter()  # pieces in committed steps, this epoch
        self.consumed: Counter = Counter()  # rows that the ledger should have, this epoch
        self.split = 0  # rows counted as split, this epoch

    def run(self, epochs: int = 2, views: int = 3) -> None:
        for epoch in range(epochs):
            self.ledger = self.ledger.open_epoch(epoch)
            for _ in range(int(self.rng.integers(0, views + 1))):
                self.one_view(epoch)
            self.last_view(epoch)
            self.check_epoch(epoch)

    def one_view(self, epoch: int) -> None:
        deal = self.deal(epoch, last=False)
        cursors, left = [], []
        for rank, worker in enumerate(self.workers):
            cursor, stepped = self.train(deal, rank, worker)
            cursors.append(cursor)
            left.append(stepped)
        survives = self.rng.random(len(self.workers)) < 0.6
        told = self.told(deal, survives, cursors, left)
        for rank, worker in enumerate(self.workers):
            if survives[rank]:
                lengths = with_lengths(self.ledger.known_lengths(), told)
                worker.pending = taken_between(deal, rank, cursors[rank], max(cursors[rank], left[rank]), lengths)
        self.close(deal, cursors, told)
        self.workers = [worker for worker, alive in zip(self.workers, survives, strict=True) if alive]
        self.workers += [Worker() for _ in range(self.rng.integers(0 if self.workers else 1, 3))]
        self.rng.shuffle(self.workers)

    def train(self, deal: StreamDeal, rank: int, worker: Worker) -> tuple[int, int]:
        """Fetch some samples, step on some of them, commit some of these; return the cursors of both."""
        start = worker.pending.count
        known = with_lengths(self.ledger.known_lengths(), worker.found)
        reader = Reader(deal, rank, known, self.lengths, self.transform, start)
        reader.fetch(int(self.rng.integers(0, 30)))
        stepped = int(self.rng.integers(0, len(reader.samples) + 1))
        committed = int(self.rng.integers(0, stepped + 1))
        worker.found = merged(worker.found, reader.walk.found())
        before, after = reader.count.after(committed), reader.count.after(stepped)
        if self.rng.random() < 0.3:  # the view broke before its first commit
            worker.steps += pieces_in(reader.samples[:stepped])
            self.split += after.split
            return 0, start + after.rows
        self.trained.update(worker.steps + pieces_in(reader.samples[:committed]))
        worker.steps = pieces_in(reader.samples[committed:stepped])
        self.split += before.split + after.split
        self.consumed.update(worker.pending.rows().tolist() + reader.delivered[: before.rows])
        return start + before.rows, start + after.rows

    def last_view(self, epoch: int) -> None:
        """All read their lists to the end."""
        deal = self.deal(epoch, last=True)
        cursors, told = [], {}
        for rank, worker in enumerate(self.workers):
            known, start = with_lengths(self.ledger.known_lengths(), worker.found), worker.pending.count
            reader = Reader(deal, rank, known, self.lengths, self.transform, start)
            reader.fetch(sys.maxsize)
            told = merged(told, worker.found, reader.walk.found())
            self.trained.update(worker.steps + pieces_in(reader.samples))
            self.consumed.update(worker.pending.rows().tolist() + reader.delivered)
            cursors.append(start + reader.count.after(len(reader.samples)).rows)
            length = list_length(deal, rank, with_lengths(known, reader.walk.found()))
            assert cursors[-1] == start + len(reader.delivered) == length
            worker.pending, worker.steps, worker.found = Ranges(), [], {}
        for shard in self.ledger.lengths_needed(deal, cursors, told):
            raise AssertionError(f"the length of shard {shard}, which was read to its end, is still wanted")
        self.ledger = self.ledger.close_epoch(deal, cursors, told)

    def deal(self, epoch: int, last: bool) -> StreamDeal:
        shares = self.rng.choice([0.0, 0.5, 1.0, 3.0], len(self.workers))
        if last and not shares.any():
            shares[0] = 1.0
        deal = self._deal(epoch, tuple(shares.tolist()))
        wanted = unknown_needed(deal)
        if wanted and self.rng.random() < 0.7:
            self.ledger = self.ledger.learn({shard: self.lengths[shard] for shard in wanted})
            deal = self._deal(epoch, tuple(shares.tolist()))
            assert not unknown_needed(deal)
        self.ledger = self.ledger.dealt()
        return deal

    def _deal(self, epoch: int, shares: tuple[float, ...]) -> StreamDeal:
        ranks = range(len(self.workers))
        holders = [[rank for rank in ranks if self.rng.random() < 0.5] for _ in self.lengths] if self.holds else ()
        pending = [worker.pending for worker in self.workers]
        deal = self.ledger.deal(epoch, 3, shares, pending, self.interleave, self.window, holders)
        return from_plain(StreamDeal, json.loads(json.dumps(to_plain(deal))))

    def told(self, deal: StreamDeal, survives, cursors, left) -> dict[int, int]:
        """What survivors tell, and what has to be read again because only the dead knew it."""
        ranks = np.flatnonzero(survives).tolist()
        told = merged(*(self.workers[rank].found for rank in ranks))
        known = with_lengths(self.ledger.known_lengths(), told)
        for rank in ranks:
            assert not needed(deal, rank, cursors[rank], known) | needed(deal, rank, left[rank], known)
        while wanted := self.ledger.lengths_needed(deal, cursors, told):
            for shard, rows in wanted.items():
                goes_on = self.lengths[shard] >= rows and self.rng.random() < 0.7
                told[shard] = -1 - rows if goes_on else self.lengths[shard]
        return told

    def close(self, deal: StreamDeal, cursors: list[int], told: dict[int, int]) -> None:
        self.ledger = self.ledger.close(deal, cursors, told)
        assert recorded(self.ledger, deal.epoch) == set(self.consumed)
        assert self.ledger.consumed_rows(deal.epoch) == len(self.consumed)
        if (left := self.ledger.remaining(deal.epoch)) is not None:
            assert left == sum(self.lengths) - len(self.consumed)

    def check_epoch(self, epoch: int) -> None:
        rows = {shard * ROWS + row for shard, length in enumerate(self.lengths) for row in range(length)}
        assert self.consumed == Counter(rows), "each row is consumed exactly once"
        pieces = {(address, piece) for address in rows for piece in range(self.transform.pieces(address))}
        assert set(self.trained) == pieces, "each piece of each row is trained on"
        again = {address for (address, _), times in self.trained.items() if times > 1}
        assert len(again) <= self.split, "what is trained on twice is counted as split"
        assert self.transform.splits or not self.split
        ledger = self.ledger
        assert (ledger.rows_lost, ledger.rows_repeated, ledger.shards_unread) == (0, 0, 0)
        assert (ledger.open, ledger.known_lengths().tolist()) == ((), self.lengths)
        self.trained, self.consumed, self.split = Counter(), Counter(), 0


def pieces_in(samples: list) -> list:
    return list(itertools.chain(*samples))


def recorded(ledger: StreamLedger, epoch: int) -> set[int]:
    """The addresses of all rows that the ledger has as consumed, one by one."""
    (book,) = [book for book in ledger.open if book.epoch == epoch]
    lengths = ledger.known_lengths()
    found = set(Ranges.decode(book.begun).rows().tolist())
    for shard in np.flatnonzero(coding.decode_flags(book.finished)).tolist():
        assert lengths[shard] != UNKNOWN
        found |= {shard * ROWS + row for row in range(lengths[shard])}
    return found
