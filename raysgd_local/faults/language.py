"""What goes wrong, to whom and when: the words of `--chaos`, for simulated fleets and for real processes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from raysgd_local.errors import InputError, nearest

Kind = Literal[
    "kill",
    "vanish",
    "stop",
    "hang",
    "zombie",
    "slow",
    "drain",
    "sigterm",
    "nan",
    "error",
    "cut",
    "unwritten",
    "unpublished",
    "damage",
    "interrupt",
    "driver",
]
KINDS: tuple[str, ...] = get_args(Kind)
REAL = ("kill", "stop", "hang", "slow", "drain", "sigterm", "nan", "error", "cut", "damage", "driver", "interrupt")
"""Kinds that can be made to happen to real processes; the others are the simulator's."""
UNTARGETED = ("unpublished", "damage", "interrupt", "driver")
NUMBERED = ("stop", "hang", "zombie", "slow", "drain")
"""Kinds that take a number: for how many seconds, or how much slower."""

Among = Literal["members", "joiners", "nodes"]
_AMONG: dict[str, Among] = {"": "members", "j": "joiners", "node": "nodes"}
_DEFAULTS = {"stop": math.inf, "hang": math.inf, "zombie": 20.0, "slow": 2.0, "drain": 30.0}
_WORDS = re.compile(
    r"(?P<kind>[a-z]+)(:(?P<among>j|node|)(?P<target>\d+)(x(?P<amount>\d+\.?\d*|\.\d+))?)?"
    r"@((?P<unit>round|event)=(?P<count>\d+)|(?P<seconds>\d+\.?\d*|\.\d+)s)"
)


@dataclass(frozen=True)
class When:
    """In seconds, at a committed round, or at an event of the simulation: one of the three.

    Seconds count from the first committed round.
    """

    seconds: float | None = None
    round: int | None = None
    event: int | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.seconds:g}s"
        return f"round={self.round}" if self.round is not None else f"event={self.event}"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    `kill`: the process dies, and that is noticed. `vanish`: its node does, and nobody says so. `stop`: it stands
    still for `amount` seconds. `hang`: its loop does, while the process lives on. `zombie`: it is taken for dead and
    goes on for `amount` seconds. `slow`: it computes `amount` times slower. `drain`: its node will go in `amount`
    seconds; `sigterm`: it is told itself.
    `nan`: its model is not finite any more. `error`: user code raises. `cut`: its connections break. `unwritten`:
    its next part of a checkpoint can't be written; `unpublished`: the next manifest can't. `damage`: the newest
    checkpoint is not any more what was written. `interrupt`: somebody stops the run. `driver`: the driver dies with all
    workers and starts again.

    `target` is, among the members, the rank when it happens; among the `joiners`, the number among workers that
    are no members; among the `nodes`, the number of a node, and it happens to all on it. Nodes are numbered in the
    order of their first ranks; in a real cluster node 0 is the head.
    """

    kind: Kind
    when: When
    target: int = 0
    amount: float = 0.0
    among: Among = "members"

    def __str__(self) -> str:
        if self.kind in UNTARGETED:
            return f"{self.kind}@{self.when}"
        prefix = next(prefix for prefix, among in _AMONG.items() if among == self.among)
        amount = f"x{self.amount:g}" if self.kind in NUMBERED and math.isfinite(self.amount) else ""
        return f"{self.kind}:{prefix}{self.target}{amount}@{self.when}"


def parse(words: str) -> tuple[Fault, ...]:
    """The schedule that `words` describe, in the simulator's whole vocabulary.

    Raises `InputError`, with the place in `words`, for what is no fault.

    >>> [str(fault) for fault in parse("kill:3@round=20; stop:2@30s; drain:node1@60s; slow:3x2@10s")]
    ['kill:3@round=20', 'stop:2@30s', 'drain:node1x30@60s', 'slow:3x2@10s']
    """
    return tuple(_fault(part, place, KINDS) for part, place in _parts(words))


def parse_real(words: str, workers: int) -> tuple[Fault, ...]:
    """The same for real processes of a run of at most `workers`; what could never happen there is refused.

    >>> parse_real("kill:4@10s", workers=4)
    Traceback (most recent call last):
    ...
    raysgd_local.errors.InputError: chaos: 'kill:4@10s' is not allowed; allowed: a rank below 4 (at character 1)
    """
    return tuple(_possible(_fault(part, place, REAL), part, place, workers) for part, place in _parts(words))


def written(faults: tuple[Fault, ...]) -> str:
    """The inverse of `parse`."""
    return "; ".join(map(str, faults))


def _parts(words: str) -> list[tuple[str, int]]:
    """Each fault's words, and the character, counted from 1, where they begin."""
    return [(found[0].rstrip(), found.start() + 1) for found in re.finditer(r"[^;\s][^;]*", words)]


def _fault(words: str, place: int, kinds: Sequence[str]) -> Fault:
    found = _WORDS.fullmatch(words.replace(" ", ""))
    kind = found["kind"] if found else re.split(r"[:@ ]", words, maxsplit=1)[0]
    if found is None or kind not in kinds or (found["target"] is not None) == (kind in UNTARGETED):
        allowed = "FAULT:RANK@SECONDSs or FAULT:RANK@round=N, such as kill:3@round=20; FAULT is one of "
        raise _refused(words, allowed + ", ".join(kinds), place, nearest(kind, kinds) if kind not in kinds else "")
    if found["seconds"]:
        when = When(seconds=float(found["seconds"]))
    else:
        count = int(found["count"])
        when = When(round=count) if found["unit"] == "round" else When(event=count)
    amount = float(found["amount"]) if found["amount"] else _DEFAULTS.get(kind, 0.0)
    return Fault(kind, when, int(found["target"] or 0), amount, _AMONG[found["among"] or ""])  # type: ignore[arg-type]


def _possible(fault: Fault, words: str, place: int, workers: int) -> Fault:
    if fault.when.event is not None:
        raise _refused(words, "SECONDSs or round=N after the @: events are the simulator's", place)
    if fault.kind not in UNTARGETED and fault.target >= workers:
        raise _refused(words, f"a rank below {workers}", place)
    if fault.kind == "slow" and fault.amount < 1.0:
        raise _refused(words, "a factor of at least 1", place)
    return fault


def _refused(words: str, allowed: str, place: int, hint: str = "") -> InputError:
    return InputError("chaos", words, allowed, f"at character {place}" + (f"; {hint}" if hint else ""))
