"""Schedules decide when to average: one method per file, each an `init`/`next` pair over a frozen state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from raysgd_local.algorithms.schedules.adacomm import AdaComm
from raysgd_local.algorithms.schedules.base import Compared, Mode, Observation, Period, Probe, Schedule
from raysgd_local.algorithms.schedules.delayed import Delayed
from raysgd_local.algorithms.schedules.dynamic import Dynamic
from raysgd_local.algorithms.schedules.every_step import EveryStep
from raysgd_local.algorithms.schedules.fixed import FixedPeriod
from raysgd_local.algorithms.schedules.hierarchical import Hierarchical
from raysgd_local.algorithms.schedules.lupa import LupaLinear, LupaLoss
from raysgd_local.algorithms.schedules.once import Once
from raysgd_local.algorithms.schedules.qsr import QSR
from raysgd_local.algorithms.schedules.stability import Stability
from raysgd_local.algorithms.schedules.switch import AtEpoch, AtFirstDecay, AtLoss, Switch, Trigger

SCHEDULES: Mapping[str, type[Schedule]] = MappingProxyType(
    {
        "every-step": EveryStep,
        "fixed": FixedPeriod,
        "adacomm": AdaComm,
        "lupa-linear": LupaLinear,
        "lupa-loss": LupaLoss,
        "qsr": QSR,
        "once": Once,
        "hierarchical": Hierarchical,
        "dynamic": Dynamic,
        "delayed": Delayed,
        "switch": Switch,
    }
)
"""The classes by their `kind` in configurations."""

TRIGGERS: Mapping[str, type[AtEpoch | AtFirstDecay | AtLoss | Stability]] = MappingProxyType(
    {"epoch": AtEpoch, "first-decay": AtFirstDecay, "loss": AtLoss, "stability": Stability}
)
"""The classes by the `kind` of a switch's `when` in configurations."""

__all__ = [
    "QSR",
    "SCHEDULES",
    "TRIGGERS",
    "AdaComm",
    "AtEpoch",
    "AtFirstDecay",
    "AtLoss",
    "Compared",
    "Delayed",
    "Dynamic",
    "EveryStep",
    "FixedPeriod",
    "Hierarchical",
    "LupaLinear",
    "LupaLoss",
    "Mode",
    "Observation",
    "Once",
    "Period",
    "Probe",
    "Schedule",
    "Stability",
    "Switch",
    "Trigger",
]
