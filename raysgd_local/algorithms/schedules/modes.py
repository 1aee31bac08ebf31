"""Properties of a schedule over its whole run: the modes, delays and probes that it may use."""

from __future__ import annotations

import dataclasses
from typing import Any

from raysgd_local.algorithms.schedules.base import Mode


def modes(schedule: Any) -> frozenset[Mode]:
    """Return the modes of a schedule's first period, of its `later_modes` if it has any, and of its parts.

    >>> from raysgd_local.algorithms.schedules import Once, Switch
    >>> sorted(modes(Switch(then=Once())))
    ['apart', 'gradients']
    """
    inner = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    parts = [modes(part) for part in inner if hasattr(part, "init") and hasattr(part, "next")]
    own: Mode = schedule.init().period.mode
    return frozenset({own, *getattr(schedule, "later_modes", ())}).union(*parts)


def delays(schedule: Any) -> bool:
    """Whether members may go on while an averaging is under way: a schedule's first period says so, or it, or a part
    of it, has a `delay`.

    >>> from raysgd_local.algorithms.schedules import Delayed, EveryStep, Switch
    >>> delays(Switch()), delays(Switch(EveryStep(), Delayed()))
    (False, True)
    """
    inner = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    parts = [part for part in inner if hasattr(part, "init") and hasattr(part, "next")]
    own = schedule.init().period.delay > 0 or getattr(schedule, "delay", 0) > 0
    return own or any(delays(part) for part in parts)


def probes(schedule: Any) -> bool:
    """Whether a schedule, or a part of it, uses probes: steps that are tried and undone.

    >>> from raysgd_local.algorithms.schedules import Stability, Switch
    >>> probes(Switch()), probes(Switch(when=Stability()))
    (False, True)
    """
    inner = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    own = any(hasattr(part, "watch") and hasattr(part, "passes") for part in inner)
    return own or any(probes(part) for part in inner if hasattr(part, "init") and hasattr(part, "next"))
