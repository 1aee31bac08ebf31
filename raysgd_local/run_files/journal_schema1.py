"""The plain form that commands had in journals of schema 1: their digests are of that form."""

from __future__ import annotations

from typing import Any, assert_never

from raysgd_local.control.controller.events import Command, Form
from raysgd_local.control.messages import CheckpointStart, Continuation, FreshStart, Order, Start
from raysgd_local.serialization import to_plain

Plain = dict[str, Any]


def plain_command(command: Command) -> Plain:
    """The command as schema 1 wrote it."""
    plain: Plain = to_plain(command)
    return {**plain, "order": _plain_order(command.order)} if isinstance(command, Form) else plain


def _plain_order(order: Order) -> Plain:
    """An order with the five fields that `start` replaced."""
    plain: Plain = to_plain(order)
    del plain["start"]
    return {**plain, **_plain_start(order.start)}


def _plain_start(start: Start) -> Plain:
    plain: Plain = {"heal": None, "donor": None, "receivers": [], "restore": "", "align": False}
    match start:
        case FreshStart(receivers):
            return {**plain, "donor": 0, "receivers": list(receivers)}
        case CheckpointStart(checkpoint):
            return {**plain, "restore": checkpoint}
        case Continuation(lead, heal, receivers, align):
            heals, donor = lead if heal else None, lead if receivers else None
            return {**plain, "heal": heals, "donor": donor, "receivers": list(receivers), "align": align}
        case _:
            assert_never(start)
