"""The report's page."""

from __future__ import annotations

import dataclasses
import html
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raysgd_local.errors import InputError
from raysgd_local.records import EvalRow
from raysgd_local.report import render, write_report
from raysgd_local.report.charts import running_mean, thin, time_parts
from raysgd_local.report.figures import MAX_EVENTS, differences, events, headline
from raysgd_local.run_files import tables
from raysgd_local.run_files.reader import load


def page_of(*directories: Path) -> str:
    return render([load(directory) for directory in directories])


def charts_of(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)


def test_the_page_needs_nothing_from_elsewhere(run_writer: Callable[..., Path]) -> None:
    page = page_of(run_writer("demo"))
    assert not re.search(r"https?:|//www|<script|<link|<img|@import|url\((?!#)", page)


def test_the_page_has_every_chart(run_writer: Callable[..., Path]) -> None:
    page = page_of(run_writer("demo"))
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Figures",
        "Loss against time",
        "Loss against samples",
        "Accuracy on held-out data",
        "Loss on held-out data",
        "Averaging period τ",
        "Workers",
        "Who was in",
        "Where the time went",
    ]
    assert len(charts_of(page)) == 8


def test_charts_are_well_formed_and_take_their_ink_from_the_page(run_writer: Callable[..., Path]) -> None:
    for chart in charts_of(page_of(run_writer("demo"))):
        ElementTree.fromstring(chart.replace("xlink:href", "href"))
        assert "currentColor" in chart
        assert "#000000" not in chart


def test_the_run_without_an_output_gets_the_page(run_writer: Callable[..., Path]) -> None:
    directory = run_writer("demo", rounds=3)
    assert write_report([directory]) == directory / "report.html"
    assert sorted(path.name for path in directory.glob("*report*")) == ["report.html"]


def test_several_runs_get_a_page_where_one_is(
    run_writer: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_report([run_writer("a", rounds=3), run_writer("b", rounds=3)]) == tmp_path / "report.html"


def test_an_output_that_can_not_be_written_is_bad_input(run_writer: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file that can be written"):
        write_report([run_writer("demo", rounds=3)], tmp_path / "absent" / "page.html")


@pytest.mark.parametrize("rounds", [0, 1, 2, 3000])
@pytest.mark.parametrize("evals", [0, 1])
def test_runs_of_any_length_have_a_page(run_writer: Callable[..., Path], rounds: int, evals: int) -> None:
    page = page_of(run_writer("demo", rounds=rounds, evals=evals, ended=False))
    assert len(charts_of(page)) >= 4
    assert "not ended" in page
    assert len(page) < 800_000


ODD_NAMES = [
    "$x$ and $y$",
    "$\\frac{",
    "a\\$b$",
    "a,b",
    'say "x"',
    "one\r\ntwo",
    "<script>x</script>",
    "\x1b[0m",
    "mAP",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_metric_of_any_name_is_shown_as_it_is_called(run_writer: Callable[..., Path], name: str) -> None:
    directory = run_writer("demo", rounds=3)
    rows = [EvalRow(1, 1, 8, 0, 0.5, {name: 0.25}), EvalRow(2, 2, 16, 0, 1.0, {name: 0.5, "other": 1.0})]
    plain = [tables.eval_plain(row) for row in rows]
    table = tables.text(tables.eval_columns(plain), plain, header=True)
    (directory / "evals.csv").write_text(table, newline="")
    page = page_of(directory)
    assert "<script" not in page
    assert name in load(directory).metrics
    assert f"{name}, held out" in html.unescape(page).replace("\n", "\n")
    for chart in charts_of(page):
        ElementTree.fromstring(chart.replace("xlink:href", "href"))


def test_a_metric_that_the_newest_evaluation_lacks_is_shown_with_its_newest_value(
    run_writer: Callable[..., Path],
) -> None:
    directory = run_writer("demo", rounds=3)
    (directory / "evals.csv").write_text(
        "round,steps,samples,epoch,elapsed_s,diverged,test,valid\n1,1,8,0,0.5,1.0,,0.25\n1,1,8,0,0.5,nan,0.5,\n"
    )
    figures = {row.label: row.cells for row in headline([load(directory)])}
    assert figures["valid, held out"] == ("0.25 (best 0.25)",)
    assert figures["test, held out"] == ("0.5 (best 0.5)",)
    assert figures["diverged, held out"] == ("not finite (best 1)",)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0, -1.0])
def test_losses_of_any_kind_have_a_page(run_writer: Callable[..., Path], loss: float) -> None:
    assert charts_of(page_of(run_writer("all", rounds=3, change=lambda row: dataclasses.replace(row, loss=loss))))
    assert charts_of(
        page_of(
            run_writer("some", change=lambda row: dataclasses.replace(row, loss=loss if row.round % 7 else 1.0))
        )
    )


def test_several_incarnations_have_a_page(run_writer: Callable[..., Path]) -> None:
    directory = run_writer(
        "demo", rounds=40, change=lambda row: dataclasses.replace(row, incarnation=1 + row.round // 20)
    )
    assert charts_of(page_of(directory))


def test_runs_are_compared_by_figures_and_by_the_settings_that_differ(run_writer: Callable[..., Path]) -> None:
    fixed = {"task": {"name": "digits"}, "algorithm": {"schedule": {"kind": "fixed", "tau": 4}}}
    runs = [load(run_writer("a")), load(run_writer("b", config=fixed, evals=0))]
    rows = {row.label: row.cells for row in headline(runs)}
    assert rows["accuracy, held out"] == ("0.9144 (best 0.9144)", "–")
    assert rows["samples lost"] == ("0", "0")
    changed = {row.label: row.cells for row in differences(runs)}
    assert changed["algorithm.schedule.kind"] == ("adacomm", "fixed")
    assert "task.name" not in changed
    assert "Settings that differ" in render(runs)


def test_what_runs_say_is_never_markup(run_writer: Callable[..., Path]) -> None:
    page = page_of(run_writer("demo", config={"task": {"name": "<b>bold</b>"}}))
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page


def test_of_very_many_events_the_middle_is_left_out(run_writer: Callable[..., Path]) -> None:
    directory = run_writer("demo")
    (directory / "events.jsonl").write_text('{"time_s": 1, "event": "x"}\n' * 1000)
    rows = events(load(directory))
    assert len(rows) == MAX_EVENTS + 1
    assert "800 more" in [row.event for row in rows]


def test_events_are_told_in_seconds_since_the_first(run_writer: Callable[..., Path]) -> None:
    rows = events(load(run_writer("demo", rounds=200)))
    lost = next(row for row in rows if row.event == "worker_lost")
    assert (lost.at, lost.details) == ("5.0", "worker w3, pid 13, reason died")


def test_time_is_divided_without_a_rest(run_writer: Callable[..., Path]) -> None:
    parts = time_parts(load(run_writer("demo", rounds=100)).rounds)
    assert sum(parts.values()) == pytest.approx(5.0)
    assert parts["compute"] == pytest.approx(3.0)


def test_a_running_mean_leaves_out_what_is_not_finite() -> None:
    gap = running_mean(pd.Series([1.0, math.nan, 3.0]), pd.Series([1.0, 2.0, 3.0]))
    assert (gap[0], math.isnan(gap[1]), gap[2]) == (1.0, True, 3.0)
    losses = pd.Series([2.0] * 50 + [math.inf] + [2.0] * 50)
    assert running_mean(losses, pd.Series(range(101))).tolist() == [2.0] * 101


def test_a_running_mean_keeps_a_steep_beginning() -> None:
    mean = running_mean(pd.Series([9.0, 3.0] + [1.0] * 98), pd.Series([100.0, 200.0, *range(201, 299)]))
    assert mean[:2].tolist() == [9.0, 3.0 / 5 + 4 / 5]
    assert mean[-1] == 1.0


def test_long_runs_are_thinned_with_their_totals_kept(run_writer: Callable[..., Path]) -> None:
    rounds = load(run_writer("demo", rounds=5000, evals=0)).rounds
    assert thin(rounds)["total_samples"].iloc[-1] == rounds["samples"].sum()
    assert len(thin(rounds)) <= 1200
