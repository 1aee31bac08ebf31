"""Where members on one machine see how far the others are, in shared memory: meeting there takes microseconds.

A member writes its own words and reads those of the others. The words belong to one view: a member that was left
behind in an old view can't mistake what happens in the new one for its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from raysgd_local.errors import TransportError

# One word each: how many meetings the member has come to, whether it has left the view, and what it says.
_MEETINGS, _LEFT, _SAID = 0, 1, slice(2, 4)
WORDS = 4

# At first the others are looked for without sleeping, which would take longer to wake up from than most meetings
# do. Whoever else wants the processor gets it meanwhile. Then the sleeps grow with the time waited.
_AWAKE_S, _SHORTEST_S, _LONGEST_S, _SHARE = 0.001, 0.00005, 0.001, 0.02


class Board:
    """The words of all members, in rank order, as this member (`rank`) sees them; only its own can be written.

    `stands` says whether the view still does: a member that was killed can't say that it left.
    """

    def __init__(
        self, rank: int, words: Sequence[memoryview], timeout_s: float, stands: Callable[[], bool]
    ) -> None:
        self._rank, self._words, self._own = rank, words, words[rank]
        self._timeout_s, self._stands = timeout_s, stands
        self._order = threading.Lock()

    def say(self, first: int, second: int) -> None:
        """What the others will read after the next meeting."""
        self._own[_SAID.start], self._own[_SAID.start + 1] = first, second

    def said(self) -> list[tuple[int, int]]:
        """What all said, in rank order. Between the meeting after they said it and the next."""
        return [(words[_SAID.start], words[_SAID.start + 1]) for words in self._words]

    def meet(self) -> None:
        """Wait until all are here. What anybody wrote before, to any memory, can be read by all afterwards.

        Raises `TransportError` when a member that is still missing has left the view, or the view broke.
        """
        number = self._own[_MEETINGS] + 1
        self._in_order()
        self._own[_MEETINGS] = number
        for words in self._words:
            if words[_MEETINGS] < number:
                self._wait(words, number)
        self._in_order()

    def leave(self) -> None:
        """From here on nobody may rely on this member's memory."""
        self._own[_LEFT] = 1
        self._in_order()

    def check_complete(self) -> None:
        """Raise `TransportError` if a member has left: what was read of its memory meanwhile may be spoilt."""
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
        """Reads and writes of memory before this take place before those after it, as others see them.

        Two trips through a lock are a full fence on any processor: the second can't begin before the first ends.
        """
        for _ in range(2):
            with self._order:
                pass
