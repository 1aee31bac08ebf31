"""The ledger records which samples were trained on: a bitmap for the open epoch, and counts of errors.

Where rounds go across epochs, workers may be in the next epoch while others are not: it has a bitmap for each epoch
that some worker has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.deal import Deal, consumed_entries, pack, parts, unpack


@dataclass(frozen=True)
class Ledger:
    """The samples that resolved rounds have consumed. Rounds that failed don't count.

    >>> from raysgd_local.control.data.deal import Deal
    >>> ledger = Ledger().open_epoch(0, samples=4)
    >>> deal = Deal(1, 0, 7, 4, 1, ledger.consumed, ((0,),), (1.0, 1.0), ((), ()))
    >>> ledger.close(deal, cursors=(2, 1)).remaining
    1
    """

    samples: int = 0  # size of the training set; 0 before the first epoch
    epoch: int | None = None  # the open epoch; None if none is open
    consumed: bytes = b""  # bitmap of the open epoch's samples (see `deal.pack`); empty if none is open
    deals: int = 0  # deals made since the run began
    samples_lost: int = 0  # in no resolved round when their epoch closed; over all epochs
    samples_repeated: int = 0  # repetitions of samples within an epoch; over all epochs
    ahead: tuple[bytes, ...] = ()  # bitmaps of the epochs after the open one, as far as they were begun

    @property
    def next_deal_number(self) -> int:
        return self.deals + 1

    @property
    def remaining(self) -> int:
        """Number of samples of the open epoch that are in no resolved round yet."""
        return 0 if self.epoch is None else self.samples - int(unpack(self.consumed, self.samples).sum())

    def open_epoch(self, epoch: int, samples: int) -> Ledger:
        """Return the ledger with `epoch` open, none of its samples consumed. Raises RuntimeError if one is open."""
        if self.epoch is not None:
            raise RuntimeError(f"epoch {epoch} can't be opened while epoch {self.epoch} is open")
        return replace(self, epoch=epoch, samples=samples, consumed=pack(np.zeros(samples, dtype=bool)))

    def dealt(self) -> Ledger:
        """Return the ledger after the deal with `next_deal_number` was made."""
        return replace(self, deals=self.deals + 1)

    def close(self, deal: Deal, cursors: Sequence[int]) -> Ledger:
        """Mark each list of `deal` as consumed up to its rank's cursor, the end of the resolved rounds.

        Raises RuntimeError if the deal is not of the open epoch.
        """
        times = self._times(deal, cursors)
        bitmaps = [pack(row > 0) for row in times]
        while len(bitmaps) > 1 and not any(bitmaps[-1]):
            bitmaps.pop()
        repeated = self.samples_repeated + _repeated(times)
        return replace(self, consumed=bitmaps[0], ahead=tuple(bitmaps[1:]), samples_repeated=repeated)

    def _times(self, deal: Deal, cursors: Sequence[int]) -> Ints:
        """Return how often each sample was consumed in the open epoch and in those begun, (epochs, samples)."""
        if self.epoch is None or not deal.epoch <= self.epoch < deal.epoch + parts(deal):
            raise RuntimeError(f"a deal of epoch {deal.epoch} can't be closed while epoch {self.epoch} is open")
        passed = self.epoch - deal.epoch
        entered = np.concatenate([np.zeros(0, dtype=np.int64), *consumed_entries(deal, cursors, passed)])
        before = [unpack(bitmap, self.samples) for bitmap in (self.consumed, *self.ahead)]
        entered = entered - passed * self.samples
        epochs = max(len(before), int(entered.max(initial=0)) // max(1, self.samples) + 1)
        times = np.bincount(entered, minlength=epochs * self.samples).reshape(epochs, self.samples)
        times[: len(before)] += before
        return times

    def pass_to(self, epoch: int, deal: Deal, cursors: Sequence[int]) -> Ledger:
        """Close the epochs before `epoch`, which becomes the open one. The deal goes on.

        Samples that are in no resolved round count as lost.
        """
        if self.epoch is None or epoch <= self.epoch:
            return self
        closed = epoch - self.epoch
        times = self._times(deal, cursors)[:closed]
        bitmaps = (self.consumed, *self.ahead)[closed:] or (pack(np.zeros(self.samples, dtype=bool)),)
        return replace(
            self,
            epoch=epoch,
            consumed=bitmaps[0],
            ahead=bitmaps[1:],
            samples_lost=self.samples_lost + closed * self.samples - int((times > 0).sum()),
            samples_repeated=self.samples_repeated + _repeated(times),
        )

    def close_epoch(self, deal: Deal, cursors: Sequence[int]) -> Ledger:
        """Enter the epoch's last deal and close the epoch. Samples that are in no resolved round count as lost."""
        ledger = self.close(deal, cursors)
        lost = ledger.samples_lost + ledger.remaining
        return replace(ledger, epoch=None, consumed=b"", ahead=(), samples_lost=lost)


def _repeated(times: Ints) -> int:
    return int(np.maximum(times - 1, 0).sum())
