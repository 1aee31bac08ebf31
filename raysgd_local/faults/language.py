"""The language of `--chaos`: kinds, targets and times of faults, for simulated fleets and for real processes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from raysgd_local.errors import InputError, nearest
from raysgd_local.faults.kinds import KINDS, REAL, RUN, Factor, FaultKind

Among = Literal["members", "joiners", "nodes"]
_AMONG: dict[str, Among] = {"": "members", "j": "joiners", "node": "nodes"}
_WHOLE = r"[0-9]{1,12}"
_NUMBER = rf"{_WHOLE}\.?[0-9]{{0,12}}|\.{_WHOLE}"
_WORDS = re.compile(
    rf"(?P<kind>[a-z]+)(:(?P<among>j|node|)(?P<target>{_WHOLE})(x(?P<amount>{_NUMBER}))?)?"
    rf"@((?P<unit>round|event)=(?P<count>{_WHOLE})|(?P<seconds>{_NUMBER})s)"
)


@dataclass(frozen=True)
class When:
    """The moment of a fault: exactly one of the fields is set."""

    seconds: float | None = None  # after the first committed round
    round: int | None = None  # when it is committed
    event: int | None = None  # number of an event of the simulation

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g}s"
        return f"round={self.round}" if self.round is not None else f"event={self.event}"


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, its moment and its target."""

    kind: str  # of the table
    when: When
    target: int = 0  # which one among `among`, counted from 0
    amount: float = 0.0  # seconds or a factor, as the kind's row says
    # `members`: the rank at the moment when it happens. `joiners`: workers that are up and not members, in the order in
    # which they came up. `nodes`: all workers on a node; nodes are numbered in the order of their first ranks, and in a
    # real cluster node 0 is the head.
    among: Among = "members"
    # Drawn for a simulated fleet: `target` is taken modulo the number of running candidates, so that it always hits
    # someone; it is dropped if there are none. The written form lacks it, so it does not count for equality.
    drawn: bool = field(default=False, compare=False)

    @property
    def row(self) -> FaultKind:
        return KINDS[self.kind]

    def __str__(self) -> str:
        if self.row.targets == RUN:
            return f"{self.kind}@{self.when}"
        prefix = next(prefix for prefix, among in _AMONG.items() if among == self.among)
        amount = f"x{self.amount:g}" if self.row.amount is not None and math.isfinite(self.amount) else ""
        return f"{self.kind}:{prefix}{self.target}{amount}@{self.when}"


def parse(words: str) -> tuple[Fault, ...]:
    """Parse a schedule, in the simulator's whole vocabulary.

    Raises `InputError`, with the place of the mistake in `words`.

    >>> [str(fault) for fault in parse("kill:3@round=20; stop:2@30s; drain:node1@60s; slow:3x2@10s")]
    ['kill:3@round=20', 'stop:2@30s', 'drain:node1x30@60s', 'slow:3x2@10s']
    """
    return tuple(_fault(part, place, tuple(KINDS)) for part, place in _parts(words))


def parse_real(words: str, workers: int) -> tuple[Fault, ...]:
    """Parse a schedule for a run of at most `workers` real processes. Refuses faults that can't happen there.

    >>> parse_real("kill:4@10s", workers=4)
    Traceback (most recent call last):
    ...
    raysgd_local.errors.InputError: chaos: 'kill:4@10s' is not allowed; allowed: a rank below 4 (at character 1)
    """
    return tuple(_possible(_fault(part, place, REAL), part, place, workers) for part, place in _parts(words))


def written(faults: tuple[Fault, ...]) -> str:
    """The inverse of `parse`."""
    return "; ".join(map(str, faults))


def as_drawn(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    """Return the same faults as drawn ones, like those of the random search: see `Fault.drawn`."""
    return tuple(replace(fault, drawn=True) for fault in faults)


def _parts(words: str) -> list[tuple[str, int]]:
    """Yield each fault's words, and the position of their first character, from 1."""
    return [(found[0].rstrip(), found.start() + 1) for found in re.finditer(r"[^;\s][^;]*", words)]


def _fault(words: str, place: int, kinds: Sequence[str]) -> Fault:
    found = _WORDS.fullmatch(words.replace(" ", ""))
    kind = found["kind"] if found else re.split(r"[:@ ]", words, maxsplit=1)[0]
    if found is None or kind not in kinds or (found["target"] is not None) == (KINDS[kind].targets == RUN):
        allowed = "FAULT:RANK@SECONDSs or FAULT:RANK@round=N, such as kill:3@round=20; FAULT is one of "
        raise _refused(words, allowed + ", ".join(kinds), place, nearest(kind, kinds) if kind not in kinds else "")
    if found["seconds"]:
        when = When(seconds=float(found["seconds"]))
    else:
        count = int(found["count"])
        when = When(round=count) if found["unit"] == "round" else When(event=count)
    number = KINDS[kind].amount
    amount = float(found["amount"]) if found["amount"] else number.default if number else 0.0
    return Fault(kind, when, int(found["target"] or 0), amount, _AMONG[found["among"] or ""])


def _possible(fault: Fault, words: str, place: int, workers: int) -> Fault:
    if fault.when.event is not None:
        raise _refused(words, "SECONDSs or round=N after the @: events are the simulator's", place)
    if fault.row.targets != RUN and fault.target >= workers:
        raise _refused(words, f"a rank below {workers}", place)
    number = fault.row.amount
    if isinstance(number, Factor) and fault.amount < number.least:
        raise _refused(words, f"a factor of at least {number.least:g}", place)
    return fault


def _refused(words: str, allowed: str, place: int, hint: str = "") -> InputError:
    return InputError("chaos", words, allowed, f"at character {place}" + (f"; {hint}" if hint else ""))
