"""What goes wrong, and when: schedules of faults, written by hand or drawn from a seed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random
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
    "interrupt",
    "driver",
]
KINDS: tuple[str, ...] = get_args(Kind)
UNTARGETED = ("unpublished", "interrupt", "driver")
NUMBERED = ("stop", "hang", "zombie", "slow", "drain")
"""Kinds that take a number: for how many seconds, or how much slower."""

_DEFAULTS = {"stop": math.inf, "hang": math.inf, "zombie": 20.0, "slow": 2.0, "drain": 30.0}
_WORDS = re.compile(
    r"(?P<kind>[a-z]+)(:(?P<joiner>j?)(?P<target>\d+)(x(?P<amount>[\d.]+))?)?"
    r"@((?P<unit>round|event)=(?P<count>\d+)|(?P<seconds>[\d.]+)s)"
)


@dataclass(frozen=True)
class When:
    """In seconds, at a committed round, or at an event of the simulation: one of the three."""

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
    seconds; `sigterm`: it is told itself. `nan`: its model is not finite any more. `error`: user code raises. `cut`:
    its connections break. `unwritten`: its next part of a checkpoint can't be written; `unpublished`: the next
    manifest can't. `interrupt`: somebody stops the run. `driver`: the driver dies with all workers and starts again.
    `target` is the rank when it happens, or, for a `joiner`, the number among workers that are no members.
    """

    kind: Kind
    when: When
    target: int = 0
    amount: float = 0.0
    joiner: bool = False

    def __str__(self) -> str:
        if self.kind in UNTARGETED:
            return f"{self.kind}@{self.when}"
        amount = f"x{self.amount:g}" if self.kind in NUMBERED and math.isfinite(self.amount) else ""
        return f"{self.kind}:{'j' if self.joiner else ''}{self.target}{amount}@{self.when}"


def parse(words: str) -> tuple[Fault, ...]:
    """The schedule that `words` describe. Raises `InputError` for what is no fault.

    >>> [str(fault) for fault in parse("kill:3@round=20; stop:2@30s; slow:3x2@10s")]
    ['kill:3@round=20', 'stop:2@30s', 'slow:3x2@10s']
    """
    return tuple(_fault(part.strip()) for part in words.split(";") if part.strip())


def written(faults: tuple[Fault, ...]) -> str:
    """The inverse of `parse`."""
    return "; ".join(map(str, faults))


def _fault(words: str) -> Fault:
    found = _WORDS.fullmatch(words.replace(" ", ""))
    kind = found["kind"] if found else words.partition(":")[0]
    targeted = found is not None and found["target"] is not None
    if found is None or kind not in KINDS or targeted == (kind in UNTARGETED):
        allowed = "FAULT:RANK@SECONDSs or FAULT:RANK@round=N, such as kill:3@round=20; FAULT is one of "
        raise InputError("chaos", words, allowed + ", ".join(KINDS), nearest(kind, KINDS))
    if found["seconds"]:
        when = When(seconds=float(found["seconds"]))
    else:
        count = int(found["count"])
        when = When(round=count) if found["unit"] == "round" else When(event=count)
    amount = float(found["amount"]) if found["amount"] else _DEFAULTS.get(kind, 0.0)
    return Fault(kind, when, int(found["target"] or 0), amount, bool(found["joiner"]))  # type: ignore[arg-type]


_ODDS: dict[str, float] = {
    "kill": 6,
    "vanish": 1,
    "stop": 2,
    "hang": 1,
    "zombie": 2,
    "slow": 1,
    "drain": 2,
    "sigterm": 1,
    "nan": 2,
    "error": 0.4,
    "cut": 2,
    "unwritten": 0.5,
    "unpublished": 0.5,
    "interrupt": 0.3,
    "driver": 0.4,
}


def random_faults(random: Random, most: int, events: int) -> tuple[Fault, ...]:
    """Up to `most` faults, most of them at any of the first `events` events; some come in bursts."""
    faults: list[Fault] = []
    for _ in range(random.randint(0, most)):
        burst = faults and random.random() < 0.35 and faults[-1].when.event is not None
        if burst:
            when = When(event=(faults[-1].when.event or 0) + random.randint(0, 12))
        elif random.random() < 0.2:
            when = When(round=random.randint(1, 20))
        else:
            when = When(event=random.randint(1, events))
        faults.append(_random_fault(random, when))
    return tuple(faults)


def _random_fault(random: Random, when: When) -> Fault:
    kind = random.choices(KINDS, [_ODDS[kind] for kind in KINDS])[0]
    joiner = kind not in UNTARGETED and random.random() < 0.15
    target = 0 if kind in UNTARGETED else random.randrange(8)
    amount = 0.0
    if kind in NUMBERED:
        amount = round(random.choice((0.5, 2, 8, 25)) * random.uniform(0.5, 1.5), 2)
    return Fault(kind, when, target, amount, joiner)  # type: ignore[arg-type]
