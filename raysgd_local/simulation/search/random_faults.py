"""Draw schedules of faults from a seed."""

from __future__ import annotations

from random import Random

from raysgd_local.faults.kinds import KINDS, RUN
from raysgd_local.faults.language import Among, Fault, When

_DRAWN = [row for row in KINDS.values() if row.odds]


def random_faults(random: Random, most: int, events: int) -> tuple[Fault, ...]:
    """Draw up to `most` faults, most of them at one of the first `events` events, some in bursts."""
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


def random_damage(random: Random, events: int) -> tuple[Fault, ...]:
    """Sometimes draw damage to the newest checkpoint, in half of these cases with the death of all workers after it."""
    if random.random() > 0.04:
        return ()
    at = random.randint(1, events)
    kills = tuple(
        Fault("kill", When(event=at + random.randint(0, 9)), drawn=True) for _ in range(random.choice((0, 6)))
    )
    return (Fault("damage", When(event=at), drawn=True), *kills)


def _random_fault(random: Random, when: When) -> Fault:
    row = random.choices(_DRAWN, [row.odds for row in _DRAWN])[0]
    among: Among = "joiners" if row.targets != RUN and random.random() < 0.15 else "members"
    target = 0 if row.targets == RUN else random.randrange(8)
    amount = 0.0
    if row.amount is not None:
        amount = round(random.choice((0.5, 2, 8, 25)) * random.uniform(0.5, 1.5), 2)
    return Fault(row.name, when, target, amount, among, drawn=True)
