"""What can't be combined, and why. Everything else works together."""

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
    """What an `Algorithm` is composed of, as far as choices can contradict each other."""

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
    """Raises `InputError`, with the reason as its hint, for choices that make no sense together."""
    refusals = (_gradient_mode, _apart, _elastic, _gossip, _partial, _amplified, _weighed, _delayed)
    for found in (refusal for rule in refusals for refusal in rule(algorithm)):
        raise found


Refusals = Iterator[InputError]


def _gradient_mode(a: Choices) -> Refusals:
    """Averaged gradients leave no mean step between averagings, and members that are always equal."""
    met = modes(a.schedule)
    if "gradients" not in met:
        return
    hint = "averaging gradients before every step leaves nothing between averagings: use the schedule fixed, tau 1"
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
    """Members that average once can't make up for what that one step got wrong."""
    if "apart" not in modes(a.schedule):
        return
    if a.outer is not None:
        hint = "it would be one step of an optimizer, after which nothing follows"
        yield InputError("outer", _name(a.outer), "none with the schedule once", hint)
    if a.compression is not None:
        hint = "what the one averaging leaves out would be lost: no later one makes up for it"
        yield InputError("compression", _name(a.compression), "none with the schedule once", hint)
    if a.averaging.fraction < 1:
        hint = "members that never average again would be left as they were"
        yield InputError("averaging.fraction", a.averaging.fraction, "1 with the schedule once", hint)


def _gossip(a: Choices) -> Refusals:
    """Members that average with neighbours only have no common step."""
    if not a.averaging.gossips:
        return
    if a.outer is not None:
        hint = "there is no mean step: nobody knows the mean between evaluations"
        yield InputError("outer", _name(a.outer), "none with gossip", hint)
    if a.compression is not None and not a.compression.fine:
        hint = "neighbours send each other their parameters, and nothing can be remembered of what was left out"
        yield InputError("compression", _name(a.compression), "half or int8 with gossip", hint)
    if modes(a.schedule) != {"parameters"}:
        hint = "gossip says with whom, at every averaging: the schedule only when"
        yield InputError("schedule", _name(a.schedule), "fixed, adacomm, lupa or qsr with gossip", hint)


def _partial(a: Choices) -> Refusals:
    """Rounds in which members don't average with all others."""
    blocks, met = isinstance(a.averaging, Blocks), modes(a.schedule)
    if blocks and not _made_of(a.schedule, Hierarchical):
        hint = "the schedule hierarchical says when blocks average, and when all do"
        yield InputError("averaging", _name(a.averaging), "mean, unless the schedule is hierarchical", hint)
    if _made_of(a.schedule, Hierarchical) and not blocks:
        hint = "it has to be said who is in a block: averaging: {kind: blocks}, for nodes"
        yield InputError("averaging", _name(a.averaging), "blocks with the schedule hierarchical", hint)
    if _made_of(a.schedule, Hierarchical) and _made_of(a.schedule, Dynamic):
        hint = "how far members are apart is told to all, which blocks are to avoid"
        yield InputError("schedule", _name(a.schedule), "hierarchical or dynamic, not both", hint)
    if "partial" in met and a.averaging.fraction < 1:
        hint = "who sits out has nothing to average with a block, or to be looked at"
        yield InputError(
            "averaging.fraction", a.averaging.fraction, "1 with averagings that are not over all", hint
        )
    if a.partial and a.optimizer_state == "average":
        hint = "optimizer state would be averaged over others than the parameters are"
        yield InputError("optimizer_state", a.optimizer_state, "keep or reset where not all average", hint)


def _made_of(schedule: Any, kind: type) -> bool:
    """Whether a schedule is of `kind`, or has one inside."""
    parts = [getattr(schedule, field.name) for field in dataclasses.fields(schedule)]
    return isinstance(schedule, kind) or any(_made_of(part, kind) for part in parts if hasattr(part, "init"))


def _weighed(a: Choices) -> Refusals:
    """Steps are weighed where they are averaged, and nowhere else."""
    if a.weights.plain:
        return
    if _keeps_apart(a) or a.partial or "apart" in modes(a.schedule):
        hint = "they weigh the steps that become the mean step; here members keep theirs"
        yield InputError("weights", _name(a.weights), "samples with members that stay apart", hint)


def _elastic(a: Choices) -> Refusals:
    if not _keeps_apart(a):
        return
    if a.outer is not None:
        hint = "the centre is moved by the members' pull already"
        yield InputError("outer", _name(a.outer), "none with members that stay apart", hint)
    if "partial" in modes(a.schedule):
        hint = "members are never at the centre: there is no distance to look at, and no block has a mean"
        yield InputError("schedule", _name(a.schedule), "one that averages with all, with elastic averaging", hint)
    if a.compression is not None and not a.compression.fine:
        hint = "both ends of a spring have to know its length nearly, and nothing can be remembered of it"
        yield InputError("compression", _name(a.compression), "half or int8 with members that stay apart", hint)


def _delayed(a: Choices) -> Refusals:
    """Members that have gone on when the averaging arrives."""
    if not a.delayed:
        return
    if _keeps_apart(a) or a.averaging.gossips or a.averaging.fraction < 1:
        what = "averaging.fraction" if a.averaging.fraction < 1 else "averaging"
        hint = "what is applied later is the step of all to their common mean: here there is none, or not of all"
        yield InputError(what, _name(a.averaging), "mean of all with the schedule delayed", hint)
    if _made_of(a.schedule, Dynamic):
        hint = "how far apart members are decides in between how far a round reaches: nobody can go on meanwhile"
        yield InputError("schedule", _name(a.schedule), "delayed or dynamic, not both", hint)
    if not a.weights.plain and a.optimizer_state == "reset":
        hint = "how far steps go is known where momentum begins anew with them; here it does some steps later"
        yield InputError("weights", _name(a.weights), "samples, or momentum that is kept, with delayed", hint)
    for switch in _switches(a.schedule):
        if delays(switch.first) and modes(switch.then) != {"parameters"}:
            hint = "when the switch is decided members have gone on for some steps already"
            yield InputError("schedule", "delayed", "delayed after the switch, not before it", hint)


def _switches(schedule: Any) -> Iterator[Switch]:
    """A schedule's switches, its own and its parts'."""
    if isinstance(schedule, Switch):
        yield schedule
    for part in (getattr(schedule, field.name) for field in dataclasses.fields(schedule)):
        if hasattr(part, "init"):
            yield from _switches(part)


def _amplified(a: Choices) -> Refusals:
    if isinstance(a.outer, BlockMomentum) and a.outer.momentum is None and a.lr_scaling == "linear":
        hint = "the default block momentum multiplies steps by the number of workers already: set outer.momentum"
        yield InputError("lr_scaling", a.lr_scaling, "none or sqrt with block momentum's default", hint)


def _keeps_apart(a: Choices) -> bool:
    return a.averaging.coupling(1) is not None


def _name(choice: Any) -> str:
    return type(choice).__name__


def check_workers(algorithm: Choices, most: int) -> None:
    """Raises `InputError` where the coupling of up to `most` workers would swing itself up."""
    for workers in range(1, most + 1):
        coupling = algorithm.averaging.coupling(workers)
        if coupling is not None and not 0 < coupling.pull + coupling.push < 2:
            hint = f"{workers} workers make pull + push = {coupling.pull + coupling.push:.3g}: alpha < 2/(workers + 1)"
            raise InputError("algorithm.averaging", _name(algorithm.averaging), "a coupling that is stable", hint)
