"""A run's journal, gone through again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from raysgd_local.algorithms.placement import RedundantChunks
from raysgd_local.algorithms.schedules import AdaComm, AtEpoch, EveryStep, FixedPeriod, Switch
from raysgd_local.control.controller import machine as controller
from raysgd_local.control.controller.events import RunStarted, WorkerUp
from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.controller.state import begin
from raysgd_local.control.replicated.program import Program
from raysgd_local.errors import InputError
from raysgd_local.run_files import journal

SETTINGS = Settings(
    Program(Switch(EveryStep(), AdaComm(tau0=8), AtEpoch(2)), target=("accuracy", 0.9)),
    workers_min=1,
    workers_max=2,
    placement=RedundantChunks(2),
)


def lines(settings: Settings) -> list[dict]:
    state, written = begin(settings), [journal.begun(settings, None)]
    for now, event in enumerate([RunStarted(), WorkerUp("w0", "n0", 1)]):
        state, commands = controller.advance(state, event, float(now))
        written.append(journal.entry(event, float(now), commands))
    return json.loads(json.dumps(written))


def test_what_was_written_is_gone_through_with_the_same_settings_and_commands():
    steps = list(journal.replay(lines(SETTINGS)))
    assert [type(step.event) for step in steps] == [RunStarted, WorkerUp]
    assert all(step.same for step in steps)
    assert journal._untagged(lines(SETTINGS)[0]["settings"]) == SETTINGS


def test_a_controller_that_decides_otherwise_is_noticed():
    written = lines(SETTINGS)
    fewer = replace(SETTINGS, workers_max=1, program=Program(FixedPeriod(1)))
    written[0] = json.loads(json.dumps(journal.begun(fewer, None)))
    assert [step.same for step in journal.replay(written)] == [False, True]


@pytest.mark.parametrize("bad", [[{"kind": "RunStarted", "event": {}, "now": 0.0}], [{"kind": "Nonsense"}]])
def test_what_is_no_journal_is_refused(bad):
    with pytest.raises(InputError, match="journal"):
        list(journal.replay(bad))


def test_the_command_says_whether_the_same_was_decided(tmp_path, capsys):
    written = lines(SETTINGS)
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written) + '{"half')
    assert journal.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 events, 0 of them with other commands than then\n"
    written[1]["commands"] = "0" * 16
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    assert journal.main([str(tmp_path)]) == 1
    assert "now RequestWorker(worker='w0')" in capsys.readouterr().out


def test_a_journal_of_an_unknown_schema_is_refused():
    written = lines(SETTINGS)
    written[0]["schema"] = 99
    with pytest.raises(InputError, match="99"):
        list(journal.replay(written))
