"""A barrier in shared memory for members on one machine: meeting there takes microseconds.

Each member writes only its own words and reads those of the others. Every view has words of its own, so that a
member left behind in an old view can't be confused by events of the new one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from raysgd_local.errors import TransportError

# Words of a member: the number of barriers it has reached, whether it has left the view, and its two-word message.
_MEETINGS, _LEFT, _SAID = 0, 1, slice(2, 4)
WORDS = 4

# Poll without sleeping at first, because waking up takes longer than most barriers; yield the processor meanwhile.
# After `_AWAKE_S` sleep for a share of the time waited so far.
_AWAKE_S, _SHORTEST_S, _LONGEST_S, _SHARE = 0.001, 0.00005, 0.001, 0.02


class Board:
    """The words of all members in rank order, as seen by member `rank`, which can write only its own.

    `stands()` returns whether the view's connections are intact: a member that was killed can't mark that it left.
    """

    def __init__(
        self, rank: int, words: Sequence[memoryview], timeout_s: float, stands: Callable[[], bool]
    ) -> None:
        self._rank, self._words, self._own = rank, words, words[rank]
        self._timeout_s, self._stands = timeout_s, stands
        self._order = threading.Lock()

    def say(self, first: int, second: int) -> None:
        """Write this member's message, which the others read after the next `meet`."""
        self._own[_SAID.start], self._own[_SAID.start + 1] = first, second

    def said(self) -> list[tuple[int, int]]:
        """Return all members' messages in rank order. Valid between the `meet` after they were written and the next."""
        return [(words[_SAID.start], words[_SAID.start + 1]) for words in self._words]

    def meet(self) -> None:
        """Wait until all members are here. Afterwards all can read everything that any of them wrote before.

        Raises `TransportError` if a missing member has left the view, the view broke, or the time-out expires.
        """
        number = self._own[_MEETINGS] + 1
        self._in_order()
        self._own[_MEETINGS] = number
        for words in self._words:
            if words[_MEETINGS] < number:
                self._wait(words, number)
        self._in_order()

    def leave(self) -> None:
        """Mark that this member left: from here on the others must not rely on its memory."""
        self._own[_LEFT] = 1
        self._in_order()

    def check_complete(self) -> None:
        """Raise `TransportError` if a member has left: data read from its memory meanwhile may be spoilt."""
        self._in_order()
        if any(words[_LEFT] for words in self._words):
            raise TransportError("a member left the view")

    def _wait(self, words: memoryview, number: int) -> None:
        began_s = time.monotonic()
        while words[_MEETINGS] < number:
            if (words[_LEFT] and words[_MEETINGS] < number) or not self._stands():
                raise TransportError("a member left the view")
            waited_s = time.monotonic() - began_s
            if waited_s > self._timeout_s:
                raise TransportError(f"a member did not come within {self._timeout_s} s")
            if waited_s < _AWAKE_S:
                os.sched_yield()
            else:
                time.sleep(min(max(_SHARE * waited_s, _SHORTEST_S), _LONGEST_S))

    def _in_order(self) -> None:
        """Memory fence: other members see reads and writes before it as done before those after it.

        Taking a lock twice is a full fence on any processor: the second can't begin before the first ends.
        """
        for _ in range(2):
            with self._order:
                pass
