"""The reasons for which training fails in a round, as all members find them in the reduced slots."""

from __future__ import annotations

from collections.abc import Sequence

from raysgd_local.algorithms.schedules.base import Mode
from raysgd_local.control.control_slots import Contribution, Control, Flags
from raysgd_local.control.marks import mark

_RATE_TOLERANCE = 1e-5
"""Largest relative difference of learning rates that count as equal: slots travel in float32."""


def failure(control: Control, finite: bool, mode: Mode) -> str:
    """Return the reason why training can't go on after this round; empty if it can."""
    if not control.agreed:
        mark("replicas_differ")
        return "replicas differ: members came to a round with different committed states"
    if not finite or (any(control.sick) and control.weight == 0):
        return "diverged: no worker that took part in the round has a finite state"
    return (_unequal_steps(control) or _unequal_rates(control)) if mode == "gradients" else ""


def _unequal_steps(control: Control) -> str:
    """Compare the optimizers that step together. Members that have no data take part in the others' steps."""
    if len(control.steppings) < 2:
        return ""
    mark("optimizers_differ")
    told = "; ".join(f"{_optimizers(chosen)} on {_ranks(ranks)}" for chosen, ranks in control.steppings.items())
    return (
        f"ranks step different optimizers in a step that all workers take together: {told}. Where gradients are "
        "averaged, all ranks have to step the same optimizers (ctx.step(…, optimizer=…)) in the same order"
    )


def _optimizers(chosen: int) -> str:
    """Name optimizers by the order in which they were prepared, from 0."""
    numbers = [str(number) for number in range(chosen.bit_length()) if chosen >> number & 1]
    return f"optimizer{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else "all optimizers"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def at_odds(control: Control) -> tuple[tuple[int, str], ...]:
    """Return by rank the wants of loops of which some evaluate and others have gone past that evaluation."""
    waits = control.ranks(Flags.EVALUATES)
    if not waits:
        return ()
    epoch = min(control.members[rank].epoch for rank in waits)
    past = {
        rank: "has ended its loop" if said.flags & Flags.ENDED else f"trains in epoch {said.epoch}"
        for rank, said in enumerate(control.members)
        if rank not in waits and (said.flags & Flags.ENDED or _has_passed(said, epoch))
    }
    mark("evaluation_passed_by", bool(past))
    return tuple(sorted({**dict.fromkeys(waits, "evaluates (ctx.evaluate)"), **past}.items())) if past else ()


def _has_passed(said: Contribution, epoch: int) -> bool:
    """Whether a loop trains in this epoch or a later one, or leaves it, and so has gone past the evaluation before."""
    return said.epoch >= epoch and bool(said.steps or said.flags & Flags.LEFT)


def told_odds(at_odds: Sequence[tuple[int, str]]) -> str:
    """Say which ranks' loops want what."""
    return "the ranks' loops wait for different things: " + "; ".join(f"rank {r} {want}" for r, want in at_odds)


def _unequal_rates(control: Control) -> str:
    """Compare the learning rates of a step that all take together. Members whose schedulers are behind catch up."""
    stepping = {rank: said for rank, said in enumerate(control.members) if said.steps or not control.stepping}
    newest = max(said.scheduler_steps for said in stepping.values())
    rates = {rank: said.lr for rank, said in stepping.items() if said.scheduler_steps == newest}
    highest = max(rates.values())
    if highest - min(rates.values()) <= _RATE_TOLERANCE * highest:
        return ""
    told = ", ".join(f"{rate:g} on rank {rank}" for rank, rate in rates.items())
    return (
        f"learning rates differ in a step that all workers take together: {told}. Set the same rate on all; give "
        "schedulers to ctx.prepare_scheduler"
    )
