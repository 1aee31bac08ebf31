"""Progress, on a terminal and elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from raysgd_local.run.progress import Display, Snapshot, line

RUNNING = Snapshot(
    "running", 2.0, 10, 7, 8, 4, 0.5, 900, 450.0, 0.7, 0.2, 0.1, elapsed_s=2.0, metrics={"accuracy": 0.91}
)


class SetClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


def plain() -> tuple[Display, io.StringIO, SetClock]:
    out, clock = io.StringIO(), SetClock()
    return Display(Console(file=out, force_terminal=False, width=80), clock), out, clock


def test_where_there_is_no_terminal_lines_come_every_few_seconds() -> None:
    display, out, clock = plain()
    with display:
        for tick in range(120):
            clock.time = tick / 10
            display.update(replace(RUNNING, round=tick + 1))
    rounds = [text.split("round ")[1].split(" ")[0] for text in out.getvalue().splitlines()]
    assert rounds == ["1", "51", "101", "120"]


def test_a_change_of_status_is_told_at_once() -> None:
    display, out, _ = plain()
    with display:
        display.update(RUNNING)
        display.update(replace(RUNNING, status="paused"))
    assert [text.split(" ")[0] for text in out.getvalue().splitlines()] == ["running", "paused"]


def test_a_message_is_told_once() -> None:
    display, out, _ = plain()
    with display:
        for _tick in range(3):
            display.update(replace(RUNNING, message="worker w3 was lost [killed]"))
    assert out.getvalue().count("worker w3 was lost [killed]") == 1


def test_a_line_holds_all_that_is_asked_for_and_is_never_wrapped() -> None:
    display, out, _ = plain()
    with display:
        display.update(RUNNING)
    assert out.getvalue() == line(RUNNING) + "\n"
    for part in ("epoch 2/10", "loss 0.5", "tau 8", "4 workers", "450 samples/s", "compute 70%", "accuracy 0.91"):
        assert part in line(RUNNING)


def test_before_the_first_round_a_line_says_what_is_known() -> None:
    assert line(Snapshot("starting", workers=1, elapsed_s=3)) == "starting 3.0s | 1 worker"


def test_a_loss_that_is_unknown_or_not_finite_is_shown_as_such() -> None:
    assert "loss –" in line(replace(RUNNING, loss=None))
    assert "loss nan" in line(replace(RUNNING, loss=float("nan")))


def test_on_a_terminal_it_is_bars_that_hold_the_same() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=True, width=120), SetClock()) as display:
        display.update(Snapshot("starting"))
        display.update(replace(RUNNING, message="worker w3 was lost"))
    shown = out.getvalue()
    for part in ("running", "epoch 2/10", "450 samples/s", "communication 20%", "worker w3 was lost", "0.91"):
        assert part in shown


def test_a_line_that_says_nothing_new_is_not_repeated() -> None:
    display, out, clock = plain()
    with display:
        for clock.time in range(0, 60, 10):
            display.update(Snapshot("starting"))
    assert out.getvalue() == "starting 0.0s\n"


def test_a_number_of_epochs_that_is_not_known_is_not_shown_as_0() -> None:
    assert " epoch 3 |" in line(replace(RUNNING, epoch=3.0, epochs=0))
