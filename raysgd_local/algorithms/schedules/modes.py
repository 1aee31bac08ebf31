"""Which modes a schedule may come to."""

from __future__ import annotations

import dataclasses
from typing import Any

from raysgd_local.algorithms.schedules.base import Mode


def modes(schedule: Any) -> frozenset[Mode]:
    """The modes of a schedule's first period, its `later_modes` if it has any, and those of its parts.

    >>> from raysgd_local.algorithms.schedules import Once, Switch
    >>> sorted(modes(Switch(then=Once())))
    ['apart', 'gradients']
    """
    inner = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    parts = [modes(part) for part in inner if hasattr(part, "init") and hasattr(part, "next")]
    own: Mode = schedule.init().period.mode
    return frozenset({own, *getattr(schedule, "later_modes", ())}).union(*parts)
