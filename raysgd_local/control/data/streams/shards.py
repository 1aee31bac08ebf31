"""The shards of a source, as one member sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from raysgd_local.control.data.apportionment import Ints
from raysgd_local.control.data.streams import coding


@dataclass(frozen=True)
class Shards:
    """The shards of a source. All members must see the same ones."""

    names: str  # digest of their number and names
    lengths: bytes  # table of 1 + length for each shard; 0: unknown

    @staticmethod
    def of(names: Sequence[str], lengths: Iterable[int | None]) -> Shards:
        """Return the record of these shards; a length is None if it is unknown.

        >>> Shards.of(["a", "b"], [3, None]).known_lengths().tolist()
        [3, -1]
        """
        digest = sha256(repr(tuple(names)).encode()).hexdigest()
        table = [0 if length is None else 1 + length for length in lengths]
        return Shards(digest, coding.encode_table(np.array(table, dtype=np.int64)))

    def known_lengths(self) -> Ints:
        """Return each shard's length, −1 where it is unknown."""
        return coding.decode_table(self.lengths) - 1
