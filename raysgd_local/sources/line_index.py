"""Where rows begin in a file of lines: found once by a scan, then any row is reached by one seek."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

_BLOCK = 1 << 18  # bytes between two entries: so many are read, at most, before the row that is sought
_NEWLINE, _RETURN = 10, 13


@dataclass(frozen=True)
class LineIndex:
    """The blocks of a file of lines. Each begins where a line does."""

    firsts: array[int]  # number of each block's first row
    offsets: array[int]  # of each block in the file, in bytes
    rows: int

    def before(self, row: int) -> tuple[int, int]:
        """Return the number and the offset of the nearest row at or before `row` that begins a block."""
        block = bisect_right(self.firsts, row) - 1
        return (self.firsts[block], self.offsets[block]) if block >= 0 else (0, 0)


def index_of(file: IO[bytes], blank: bool) -> LineIndex:
    """Scan a file. `blank`: whether empty lines count as rows."""
    firsts, offsets, rows, offset = array("q"), array("q"), 0, 0
    for block in _blocks(file):
        firsts.append(rows)
        offsets.append(offset)
        rows += _count(block, blank)
        offset += len(block)
    return LineIndex(firsts, offsets, rows)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block + file.readline()


def _count(block: bytes, blank: bool) -> int:
    """Return the number of rows in a block of whole lines, of which the last may lack its newline."""
    if blank:
        return block.count(b"\n") + (not block.endswith(b"\n"))
    content = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(content == _NEWLINE)
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    lengths = np.diff(ends, prepend=-1) - 1
    returns = np.count_nonzero(content[ends[lengths == 1] - 1] == _RETURN)
    return int(np.count_nonzero(lengths) - returns)


BLANK_LINES = (b"\n", b"\r\n", b"\r")
