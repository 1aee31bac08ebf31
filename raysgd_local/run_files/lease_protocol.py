"""One writer a run: how commands that want the same run directory settle which of them has it. Does no I/O.

Storage offers nothing but whole files and a listing (a local directory, an object store), so the protocol uses nothing
else. Each contender has a file of its own in `RUN/lease/`, a *claim*, which it rewrites with a higher count as a sign
of life; the winner's says `holder`. Nobody compares clocks of two machines: a claim is dead when its count has not
changed for `LEASE_S` on the observer's own clock, or when its process is known to be gone.

Why at most one contender holds: each writes `holder`, then lists, and withdraws if it sees another holder. For two to
pass, each would have had to list before the other wrote, but after it wrote itself. Whoever paused (a stopped process,
a suspended machine) and was taken for dead does the same two steps again before it counts as holder.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

LEASE_S = 20.0
"""A claim whose count has not changed for so long is dead. A holder that can't renew for half of it stops writing."""

TAKEOVER_S = 1.5 * LEASE_S + 5.0
"""So soon a dead holder's run can be had by a contender on another machine; on the holder's own machine at once."""

RENEW_S = 2.0
"""How often a claim is rewritten."""

POLL_S = 0.5
"""How often a contender looks at the claims of others."""


@dataclass(frozen=True)
class Claim:
    """The content of one contender's file."""

    id: str  # names the file; a random one for each attempt
    holder: bool = False  # it has the run; otherwise it only wants it
    count: int = 0  # grows with each rewriting
    host: str = ""  # the machine's boot and process namespace
    processes: tuple[tuple[int, float], ...] = ()  # on it: number and start time, since numbers are used again
    label: str = ""  # for messages: where it runs, and since when

    def encode(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(id: str, content: bytes) -> Claim:
        """The inverse of `encode`; a file that is no claim any more counts as one that never changes."""
        try:
            plain = json.loads(content)
            processes = tuple((int(pid), float(started)) for pid, started in plain.pop("processes"))
            return Claim(**{**plain, "id": id, "processes": processes})
        except (ValueError, TypeError, KeyError, AttributeError):
            return Claim(id, label="a claim that can't be read")


# What a contender asks of its shell. Each is answered before the next is asked.


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
    """This contender holds the run. `fresh_s` is when its newest renewal began."""

    claim: Claim
    fresh_s: float


@dataclass(frozen=True)
class Refused:
    """Another has the run, or is about to."""

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
            yield Remove(claim.id)  # its turn comes first; if it dies meanwhile, ours comes again
            yield Wait(POLL_S)
        elif others:
            yield Wait(POLL_S)  # theirs comes later: they withdraw when they see ours
        else:
            outcome = yield from confirm(claim)
            if isinstance(outcome, Won):
                return outcome


def _living(claim: Claim, observed: dict[str, tuple[int, float]]) -> Generator[Ask, Any, Claim | None]:
    """Look at the others until none is left that may live (None), or a holder is known to live."""
    while True:
        before_s = yield Now()
        others = _others((yield ListClaims()), claim)
        now = yield Now()
        waits = False
        for other in others.values():
            count, since = observed.get(other.id, (other.count, now))
            # A holder that does not renew but whose process is here stands still: it may go on at any moment.
            alive = count != other.count or (other.holder and (yield IsHere(other)))
            if other.holder and alive:
                return other
            if (yield IsGone(other)):
                yield Remove(other.id)
            elif count == other.count and before_s - since >= LEASE_S:
                yield from _take_away(other)
                waits = True  # look again: it may have come back
            else:
                observed[other.id] = (other.count, since if count == other.count else now)
                waits = waits or other.holder or other.id < claim.id
        if not waits:
            return None
        yield Wait(POLL_S)


def _take_away(dead: Claim) -> Generator[Ask, Any, None]:
    """Remove a claim taken for dead. If it woke after we looked, it renews or goes stale before we look again."""
    yield Remove(dead.id)
    yield Wait(LEASE_S / 2)


def confirm(claim: Claim) -> Asking:
    """Say that this contender holds the run, and withdraw if another has said so too."""
    began_s = yield Now()
    claim = yield from _put(replace(claim, holder=True))
    others = _others((yield ListClaims()), claim)
    holders = [other for other in others.values() if other.holder]
    if not holders:
        return Won(claim, began_s)
    yield Remove(claim.id)
    return Refused(holders[0])


def renew(held: Won) -> Asking:
    """Rewrite the holder's claim. After a pause that is long enough to have been taken for dead, contend again."""
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
    """Whether the holder may write without looking again: nobody can have taken it for dead yet."""
    return now - held.fresh_s < LEASE_S / 2


def _put(claim: Claim) -> Generator[Ask, Any, Claim]:
    claim = replace(claim, count=claim.count + 1)
    yield Put(claim)
    return claim


def _others(claims: Claims, claim: Claim) -> dict[str, Claim]:
    return {id: other for id, other in claims.items() if id != claim.id}
