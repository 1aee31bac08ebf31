"""Journals of schema 1: some fields had other names, and an order's start was five fields.

Their digests are of commands in the plain form of that time.
"""

from __future__ import annotations

from typing import Any, assert_never

from raysgd_local.control.controller.checkpoints import renamed
from raysgd_local.control.controller.events import Command, Form, PublishManifest
from raysgd_local.control.messages import CheckpointStart, Continuation, FreshStart, Order, Start
from raysgd_local.serialization import to_plain

Plain = dict[str, Any]

_LATER = ("evaluated", "evaluated_round")  # fields of `Replicated`


def plain_command(command: Command) -> Plain:
    """Return the command in schema 1's form."""
    plain: Plain = to_plain(command)
    match command:
        case Form(order):
            return {**plain, "order": _plain_order(order)}
        case PublishManifest(_, manifest):
            return {**plain, "manifest": {**_with_old_names(manifest), "schema": 1}}
        case _:
            return plain


def plain_event(kind: str, plain: Plain) -> Plain:
    """Convert an event of kind `kind` to today's form."""
    if kind != "Arrived" or plain["report"]["replicated"] is None:
        return plain
    report = plain["report"]
    return {"report": {**report, "replicated": renamed(report["replicated"], "left", "left_epoch")}}


def plain_settings(plain: Plain) -> Plain:
    """Convert settings to today's form."""
    return renamed(plain, "restricted", "local_data")


def _with_old_names(plain: Plain) -> Plain:
    """Rename the fields of a record's `replicated` and `deal` back, and leave out those that came later."""
    state, deal = {k: v for k, v in plain["replicated"].items() if k not in _LATER}, plain["deal"]
    return {
        **plain,
        "replicated": renamed(state, "left_epoch", "left"),
        "deal": deal and renamed(deal, "local_data", "restricted"),
    }


def _plain_order(order: Order) -> Plain:
    """Return an order with the five fields that `start` replaced."""
    plain = _with_old_names(to_plain(order))
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
