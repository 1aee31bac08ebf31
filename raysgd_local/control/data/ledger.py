"""The ledger records which samples were trained on: a bitmap for the open epoch, and counts of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from raysgd_local.control.data.deal import Deal, lists, pack, unpack


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
        if deal.epoch != self.epoch:
            raise RuntimeError(f"a deal of epoch {deal.epoch} can't be closed while epoch {self.epoch} is open")
        entered = [positions[:cursor] for positions, cursor in zip(lists(deal), cursors, strict=True)]
        times = np.bincount(np.concatenate(entered), minlength=self.samples)
        times += unpack(self.consumed, self.samples)
        repeated = int(np.maximum(times - 1, 0).sum())
        return replace(self, consumed=pack(times > 0), samples_repeated=self.samples_repeated + repeated)

    def close_epoch(self, deal: Deal, cursors: Sequence[int]) -> Ledger:
        """Enter the epoch's last deal and close the epoch. Samples that are in no resolved round count as lost."""
        ledger = self.close(deal, cursors)
        lost = ledger.samples_lost + ledger.remaining
        return replace(ledger, epoch=None, consumed=b"", samples_lost=lost)
