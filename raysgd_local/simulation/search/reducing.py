"""Average a model that is a number: from all members' parts of a round to every member's new state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.control.control_slots import Contribution, Control
from raysgd_local.control.member.state import Member
from raysgd_local.control.replicated.state import commit, extent
from raysgd_local.simulation.search.methods import NumberMember, move
from raysgd_local.simulation.search.model import NumberAnchor, Part, Reduced, reduce_parts


def reduce_round(
    method: Algorithm, member: Member, anchor: NumberAnchor, given: Sequence[tuple[Contribution, Part]]
) -> tuple[Control, Reduced]:
    """Return all slots, and the round's result. `member` may be any member: all have the same replicated state."""
    control = Control(tuple(said for said, _ in given))
    reduced = reduce_parts([replace(part, weight=said.weight) for said, part in given], control.weight)
    if reduced.mode == "gradients":
        return control, reduced
    state, program = member.known, member.in_force.program
    members = [
        NumberMember(part.x, part.start, part.residual, said.weight, said.samples, ill=ill)
        for (said, part), ill in zip(given, control.sick, strict=True)
    ]
    apart = state.period.mode == "apart"
    stays = apart and commit(state, control, program).period.mode == "apart"  # members only learn the mean
    reach, rejoins = extent(state, control, program), apart and not stays
    moved = move(method, anchor.x, anchor.velocity, members, reach, state.round + 1, stays, rejoins)
    return control, replace(reduced, moved=moved)
