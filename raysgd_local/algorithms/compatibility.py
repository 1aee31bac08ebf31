"""The combinations of choices that make no sense, each with the reason. All other choices work together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from raysgd_local.algorithms.averaging import Averaging, Blocks
from raysgd_local.algorithms.compression import Compression
from raysgd_local.algorithms.outer import BlockMomentum, Outer
from raysgd_local.algorithms.schedules import Dynamic, Hierarchical, Schedule, Switch
from raysgd_local.algorithms.schedules.modes import delays, modes
from raysgd_local.algorithms.weights import Weights
from raysgd_local.errors import InputError


class Choices(Protocol):
    """The choices of an `Algorithm` that can contradict each other."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def averaging(self) -> Averaging: ...

    @property
    def outer(self) -> Outer | None: ...

    @property
    def compression(self) -> Compression | None: ...

    @property
    def weights(self) -> Weights: ...

    @property
    def optimizer_state(self) -> str: ...

    @property
    def lr_scaling(self) -> str: ...

    @property
    def partial(self) -> bool: ...

    @property
    def delayed(self) -> bool: ...


def check(algorithm: Choices) -> None:
    """Raise `InputError`, with the reason as its hint, for choices that make no sense together."""
    refusals = (_gradient_mode, _apart, _elastic, _gossip, _partial, _amplified, _weighed, _delayed)
    for found in (refusal for rule in refusals for refusal in rule(algorithm)):
        raise found


Refusals = Iterator[InputError]


def _gradient_mode(a: Choices) -> Refusals:
    """Check averaged gradients: members are always equal, and there is no mean step to process."""
    met = modes(a.schedule)
    if "gradients" not in met:
        return
    hint = "averaging gradients before every step leaves no local steps in between: use the schedule fixed, tau 1"
    if met == {"gradients"}:
        if a.outer is not None:
            yield InputError("outer", _name(a.outer), "none with the schedule every-step", hint)
        if a.optimizer_state == "reset":
            yield InputError("optimizer_state", "reset", "keep with the schedule every-step", hint)
        if a.averaging.fraction < 1:
            yield InputError("averaging.fraction", a.averaging.fraction, "1 with the schedule every-step", hint)
    if _keeps_apart(a) or a.averaging.gossips:
        yield InputError("averaging", _name(a.averaging), "mean where gradients are averaged", hint)
    if not a.weights.plain:
        yield InputError("weights", _name(a.weights), "samples where gradients are averaged", hint)


def _apart(a: Choices) -> Refusals:
    """Check averaging once: errors of the single averaging are never corrected."""
    if "apart" not in modes(a.schedule):
        return
    if a.outer is not None:
        hint = "an outer optimizer would take a single step, at the very end"
        yield InputError("outer", _name(a.outer), "none with the schedule once", hint)
    if a.compression is not None:
        hint = "the compression error of the only averaging would be lost: no later one corrects it"
        yield InputError("compression", _name(a.compression), "none with the schedule once", hint)
    if a.averaging.fraction < 1:
        hint = "members that are not drawn for the only averaging would be left out of the model"
        yield InputError("averaging.fraction", a.averaging.fraction, "1 with the schedule once", hint)


def _gossip(a: Choices) -> Refusals:
    """Check gossip: members that average only with neighbours have no common step."""
    if not a.averaging.gossips:
        return
    if a.outer is not None:
        hint = "there is no mean step: with gossip the mean is computed only for evaluations"
        yield InputError("outer", _name(a.outer), "none with gossip", hint)
    if a.compression is not None and not a.compression.fine:
        hint = (
            "neighbours exchange whole parameters, without error feedback, so large compression errors would stay"
        )
        yield InputError("compression", _name(a.compression), "half or int8 with gossip", hint)
    if modes(a.schedule) != {"parameters"}:
        hint = "every averaging with gossip is partial already: the schedule may only decide when"
        yield InputError("schedule", _name(a.schedule), "fixed, adacomm, lupa or qsr with gossip", hint)


def _partial(a: Choices) -> Refusals:
    """Check partial averaging: rounds in which not all members average with all."""
    blocks, met = isinstance(a.averaging, Blocks), modes(a.schedule)
    if blocks and not _made_of(a.schedule, Hierarchical):
        hint = "only the schedule hierarchical decides when blocks average, and when all members do"
        yield InputError("averaging", _name(a.averaging), "mean, unless the schedule is hierarchical", hint)
    if _made_of(a.schedule, Hierarchical) and not blocks:
        hint = "set averaging: {kind: blocks}, which makes a block of each node, or of the groups that it names"
        yield InputError("averaging", _name(a.averaging), "blocks with the schedule hierarchical", hint)
    if _made_of(a.schedule, Hierarchical) and _made_of(a.schedule, Dynamic):
        hint = "dynamic compares the distances of all members at every check, which blocks are meant to avoid"
        yield InputError("schedule", _name(a.schedule), "hierarchical or dynamic, not both", hint)
    if "partial" in met and a.averaging.fraction < 1:
        hint = "a member that takes no steps has nothing to average with its block, and no distance to check"
        yield InputError(
            "averaging.fraction", a.averaging.fraction, "1 with averagings that are not over all", hint
        )
    if a.partial and a.optimizer_state == "average":
        hint = "optimizer state would be averaged over other members than the parameters"
        yield InputError("optimizer_state", a.optimizer_state, "keep or reset where not all average", hint)


def _made_of(schedule: Any, kind: type) -> bool:
    """Whether a schedule is of class `kind`, or has such a schedule inside."""
    parts = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    return isinstance(schedule, kind) or any(_made_of(part, kind) for part in parts if hasattr(part, "init"))


def _weighed(a: Choices) -> Refusals:
    """Check weights other than samples: they apply to steps that are averaged over all members."""
    if a.weights.plain:
        return
    if _keeps_apart(a) or a.partial or "apart" in modes(a.schedule):
        hint = "these weights scale the steps in the mean step of all; here members keep their own steps"
        yield InputError("weights", _name(a.weights), "samples with members that stay apart", hint)


def _elastic(a: Choices) -> Refusals:
    if not _keeps_apart(a):
        return
    if a.outer is not None:
        hint = "the members' pull moves the centre already"
        yield InputError("outer", _name(a.outer), "none with members that stay apart", hint)
    if "partial" in modes(a.schedule):
        hint = "members are never at the centre: there is no distance to look at, and no block has a mean"
        yield InputError("schedule", _name(a.schedule), "one that averages with all, with elastic averaging", hint)
    if a.compression is not None and not a.compression.fine:
        hint = (
            "member and centre must move by nearly the same difference, and error feedback can't correct it later"
        )
        yield InputError("compression", _name(a.compression), "half or int8 with members that stay apart", hint)


def _delayed(a: Choices) -> Refusals:
    """Check delayed averaging: members have gone on when the result arrives."""
    if not a.delayed:
        return
    if _keeps_apart(a) or a.averaging.gossips or a.averaging.fraction < 1:
        what = "averaging.fraction" if a.averaging.fraction < 1 else "averaging"
        hint = "only a step of all members to their common mean can be applied later"
        yield InputError(what, _name(a.averaging), "mean of all with the schedule delayed", hint)
    if _made_of(a.schedule, Dynamic):
        hint = "dynamic needs the distances of all members before it averages, so no member can go on meanwhile"
        yield InputError("schedule", _name(a.schedule), "delayed or dynamic, not both", hint)
    if not a.weights.plain and a.optimizer_state == "reset":
        hint = "FedNova's weights need momentum that is reset before a round's first step; here it is some steps later"
        yield InputError("weights", _name(a.weights), "samples, or momentum that is kept, with delayed", hint)
    for switch in _switches(a.schedule):
        if delays(switch.first) and modes(switch.then) != {"parameters"}:
            hint = "members have already gone on for some steps when the switch is decided"
            yield InputError("schedule", "delayed", "delayed after the switch, not before it", hint)


def _switches(schedule: Any) -> Iterator[Switch]:
    """Yield all switches in a schedule: itself, or inside it."""
    if isinstance(schedule, Switch):
        yield schedule
    for part in (getattr(schedule, field.name) for field in dataclasses.fields(schedule)):
        if hasattr(part, "init"):
            yield from _switches(part)


def _amplified(a: Choices) -> Refusals:
    if isinstance(a.outer, BlockMomentum) and a.outer.momentum is None and a.lr_scaling == "linear":
        hint = "block momentum multiplies steps by the number of workers by default: set outer.momentum"
        yield InputError("lr_scaling", a.lr_scaling, "none or sqrt with block momentum's default", hint)


def _keeps_apart(a: Choices) -> bool:
    return a.averaging.coupling(1) is not None


def _name(choice: Any) -> str:
    return type(choice).__name__


def check_workers(algorithm: Choices, most: int) -> None:
    """Raise `InputError` if the elastic coupling is unstable with any number of workers up to `most`."""
    for workers in range(1, most + 1):
        coupling = algorithm.averaging.coupling(workers)
        if coupling is not None and not 0 < coupling.pull + coupling.push < 2:
            hint = f"{workers} workers make pull + push = {coupling.pull + coupling.push:.3g}: alpha < 2/(workers + 1)"
            raise InputError("algorithm.averaging", _name(algorithm.averaging), "a coupling that is stable", hint)
