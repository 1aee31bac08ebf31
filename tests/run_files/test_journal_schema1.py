"""Commands in the plain form that journals of schema 1 have digests of."""

from __future__ import annotations

import pytest
from controller_run import Run, started

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller import events as c
from raysgd_local.control.controller.checkpoints import CheckpointRecord, manifest, renamed, snapshot_of
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.messages import LoopPosition
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.run_files.journal_schema1 import plain_command, plain_event, plain_settings
from raysgd_local.serialization import to_plain

NONE = {"heal": None, "donor": None, "receivers": [], "restore": "", "align": False}


def start_of(run):
    """The fields of the newest order's plain form that say how members come to its state."""
    plain = plain_command([command for command in run.said if isinstance(command, c.Form)][-1])["order"]
    assert "start" not in plain
    return {name: plain[name] for name in NONE}


def test_a_fresh_start_has_rank_0_as_donor():
    run = Run()
    run.up("w0", "w1")
    assert start_of(run) == {**NONE, "donor": 0, "receivers": [1]}


def test_an_order_among_those_that_have_the_state_has_none_of_the_fields():
    assert start_of(started()) == NONE


def test_a_joiner_receives_and_a_member_that_is_behind_is_healed():
    run = started(spares=1)
    run.up("w2")
    run.tell(c.Died("w0", "killed"))
    run.arrive("w1", broken="cut")
    assert start_of(run) == {**NONE, "donor": 0, "receivers": [1], "align": True}
    run = started()
    run.arrive("w0", broken="cut")
    run.arrive("w1", state={"round": 1}, broken="cut")
    assert start_of(run) == {**NONE, "heal": 1, "align": True}


def test_a_checkpoint_is_named():
    state = Replicated(FixedPeriod(2).init(), round=1, cursors=(0,))
    run = Run(workers_max=1, resume=CheckpointRecord("000001", 1, 1, ("a",), True, state, Ledger(), None, None))
    run.up("w0")
    assert start_of(run) == {**NONE, "restore": "000001"}


@pytest.mark.parametrize("command", [c.RequestWorker("w0"), c.SetTimer(1, 0.5), c.DeleteCheckpoint("000001")])
def test_a_command_that_did_not_change_has_its_plain_form(command):
    assert plain_command(command) == to_plain(command)


def test_reports_and_settings_are_read_under_their_old_names():
    report = run_report()
    old = {"report": {**report, "replicated": renamed(report["replicated"], "left_epoch", "left")}}
    assert "left" in old["report"]["replicated"]
    assert plain_event("Arrived", old) == {"report": report}
    assert plain_settings({"restricted": True, "seed": 1}) == {"local_data": True, "seed": 1}


def run_report():
    run = started()
    return to_plain(run.report("w0", LoopPosition.TRAINING, run.order()))


def test_a_manifest_and_a_deal_have_their_old_names():
    run = started()
    books = run.state.books
    snapshot = CheckpointRecord(
        "000001", 1, 1, ("w0", "w1"), True, books.replicated, books.ledger, books.deal, None
    )
    plain = plain_command(c.PublishManifest("000001", manifest(snapshot, ())))["manifest"]
    assert plain["schema"] == 1
    assert plain["replicated"]["left"] == [False, False]
    assert plain["deal"]["restricted"] is False
    assert snapshot_of(plain, FixedPeriod(2)) == snapshot == snapshot_of(manifest(snapshot, ()), FixedPeriod(2))
    order = plain_command([command for command in run.said if isinstance(command, c.Form)][-1])["order"]
    assert order["deal"] == plain["deal"]
