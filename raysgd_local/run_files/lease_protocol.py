"""The lease protocol: of all commands that want a run directory, one gets it. This module does no I/O.

The protocol uses whole files and a listing only, because storage (a local directory, an object store) offers nothing
else. Each contender has a file of its own in `RUN/lease/`, a *claim*, and rewrites it with a higher count as a sign of
life. The winner's claim has `holder` set. Clocks of two machines are never compared: a claim is dead when its count has
not changed for `LEASE_S` on the observer's own clock, or when its process is known to be gone.

Why at most one contender holds the run: each writes `holder`, then lists, and withdraws if it sees another holder. For
two to pass, each would have had to list before the other wrote, but after it wrote itself. A contender that paused (a
stopped process, a suspended machine) and was taken for dead repeats these two steps before it counts as holder.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from raysgd_local.serialization import from_plain

LEASE_S = 20.0
"""A claim whose count has not changed for so long is dead; a holder that can't renew for half of it stops writing."""

TAKEOVER_S = 1.5 * LEASE_S + 5.0
"""The time after which a contender on another machine gets a dead holder's run. On the same machine it gets it at once.
"""

RENEW_S = 2.0
"""The interval at which a claim is rewritten."""

POLL_S = 0.5
"""The interval at which a contender lists the claims of others."""


@dataclass(frozen=True)
class Claim:
    """The content of one contender's file."""

    id: str  # names the file; a random one for each attempt
    holder: bool = False  # the contender has the run; otherwise it only wants it
    count: int = 0  # grows with each rewriting
    host: str = ""  # the machine's boot and process namespace
    processes: tuple[tuple[int, float], ...] = ()  # on `host`: number and start time, since numbers are reused
    label: str = ""  # for messages: machine, process and start

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(id: str, content: bytes) -> Claim:
        """The inverse of `encode`. A file that can't be decoded counts as a claim that never changes."""
        try:
            return replace(from_plain(Claim, json.loads(content)), id=id)
        except (ValueError, TypeError, RecursionError):
            return Claim(id, label="a claim that can't be read")


# A contender's requests to its shell. Each is answered before the next one.


@dataclass(frozen=True)
class Put:
    """Write this claim's file, whole."""

    claim: Claim


@dataclass(frozen=True)
class Remove:
    """Delete a claim's file, if it is there."""

    id: str


@dataclass(frozen=True)
class ListClaims:
    """Read all claims. The answer maps each id to its claim."""


@dataclass(frozen=True)
class Wait:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Now:
    """Tell the time in seconds, by a clock that runs while the machine sleeps."""


@dataclass(frozen=True)
class IsGone:
    """Tell whether this claim's processes are certainly gone (they ran on this machine and run no more)."""

    claim: Claim


@dataclass(frozen=True)
class IsHere:
    """Tell whether one of this claim's processes certainly runs (on this machine)."""

    claim: Claim


Ask = Put | Remove | ListClaims | Wait | Now | IsGone | IsHere
Claims = Mapping[str, Claim]


@dataclass(frozen=True)
class Won:
    """This contender holds the run."""

    claim: Claim
    fresh_s: float  # time at which its newest renewal began


@dataclass(frozen=True)
class Refused:
    """Another contender has the run, or is about to get it."""

    by: Claim


Asking = Generator[Ask, Any, Won | Refused]


def acquire(claim: Claim) -> Asking:
    """Contend for a run until it is won, or a living holder is seen. Leaves no file behind when refused."""
    observed: dict[str, tuple[int, float]] = {}
    while True:
        living = yield from _living(claim, observed)
        if living is not None:
            yield Remove(claim.id)
            return Refused(living)
        claim = yield from _put(claim)
        others = _others((yield ListClaims()), claim)
        if any(other.holder or other.id < claim.id for other in others.values()):
            yield Remove(claim.id)  # the other's turn is first; if it dies meanwhile, this contender tries again
            yield Wait(POLL_S)
        elif others:
            yield Wait(POLL_S)  # the others' turn is later: they withdraw when they see this claim
        else:
            outcome = yield from confirm(claim)
            if isinstance(outcome, Won):
                return outcome


def _living(claim: Claim, observed: dict[str, tuple[int, float]]) -> Generator[Ask, Any, Claim | None]:
    """Watch the other claims until none may be alive (None), or a holder is known to be alive."""
    while True:
        before_s = yield Now()
        others = _others((yield ListClaims()), claim)
        now = yield Now()
        waits = False
        for other in others.values():
            count, since = observed.get(other.id, (other.count, now))
            if other.holder and count != other.count:
                return other
            if (yield IsGone(other)):
                yield Remove(other.id)
            elif count == other.count and before_s - since >= LEASE_S:
                if other.holder and (yield IsHere(other)):
                    return other  # it stands still, and may go on at any moment
                yield from _take_away(other)
                waits = True  # list again: the holder may have come back
            else:
                observed[other.id] = (other.count, since if count == other.count else now)
                waits = waits or other.holder or other.id < claim.id
        if not waits:
            return None
        yield Wait(POLL_S)


def _take_away(dead: Claim) -> Generator[Ask, Any, None]:
    """Remove a claim that counts as dead. If its process has woken, it renews or goes stale before the next listing."""
    yield Remove(dead.id)
    yield Wait(LEASE_S / 2)


def confirm(claim: Claim) -> Asking:
    """Write that this contender holds the run, and withdraw if another one has written so too."""
    began_s = yield Now()
    claim = yield from _put(replace(claim, holder=True))
    others = _others((yield ListClaims()), claim)
    holders = [other for other in others.values() if other.holder]
    if not holders:
        return Won(claim, began_s)
    yield Remove(claim.id)
    return Refused(holders[0])


def renew(held: Won) -> Asking:
    """Rewrite the holder's claim. After a pause so long that it may count as dead, confirm it first."""
    began_s = yield Now()
    present = yield ListClaims()
    if held.claim.id in present and began_s - held.fresh_s < LEASE_S / 2:
        claim = yield from _put(held.claim)
        if (yield Now()) - began_s < LEASE_S / 2:
            return Won(claim, began_s)
    return (yield from confirm(held.claim))


def release(held: Won) -> Generator[Ask, Any, None]:
    """Give the run back."""
    yield Remove(held.claim.id)


def may_write(held: Won, now: float) -> bool:
    """Whether the holder may write without checking: its claim can't count as dead yet."""
    return now - held.fresh_s < LEASE_S / 2


def _put(claim: Claim) -> Generator[Ask, Any, Claim]:
    claim = replace(claim, count=claim.count + 1)
    yield Put(claim)
    return claim


def _others(claims: Claims, claim: Claim) -> dict[str, Claim]:
    return {id: other for id, other in claims.items() if id != claim.id}
