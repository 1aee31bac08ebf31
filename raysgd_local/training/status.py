"""The state of training on one member, for live progress."""

from __future__ import annotations

import math

from raysgd_local.control.member.machine import Member
from raysgd_local.control.replicated.round_row import RoundRow
from raysgd_local.training.ports import TrainingStatus


def status_of(member: Member, epochs: int, epoch_samples: int, row: RoundRow | None) -> TrainingStatus | None:
    """Return the state of training, with the figures of the newest round's `row`; None before the member has state."""
    state = member.replicated
    if state is None or member.order is None:
        return None
    part = state.samples % epoch_samples / epoch_samples if state.open else 0.0
    return TrainingStatus(
        epoch=state.epoch + part,
        epochs=epochs,
        round=state.round,
        tau=state.period.tau,
        workers=len(state.left_epoch),
        loss=row.loss if row else math.nan,
        samples=state.samples,
        elapsed_s=state.elapsed_s,
        compute_s=row.compute_s if row else 0.0,
        sync_s=row.sync_s if row else 0.0,
        wait_s=row.wait_s if row else 0.0,
        metrics=dict(state.metrics),
    )
