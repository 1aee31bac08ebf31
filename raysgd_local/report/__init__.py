"""Write `report.html`: one or several runs side by side, on a self-contained page."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from raysgd_local.control.run_events import EventName
from raysgd_local.errors import InputError
from raysgd_local.run_files.paths import expanded
from raysgd_local.run_files.reader import Run, load

__all__ = ["Chart", "render", "rendered", "save", "write_report"]


@dataclass(frozen=True)
class Chart:
    """A chart of the report."""

    title: str
    svg: str
    wide: bool = False  # takes the page's whole width
    legend: Mapping[str, str] = field(default_factory=dict)  # colours by name


def write_report(directories: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report of the runs in these directories, and return the page's absolute path.

    By default it is `report.html` in the run's directory, or for several runs in the working directory. Raises
    `InputError` for a directory that is not a run's, or an output that can't be written.
    """
    runs = [load(directory) for directory in directories]
    default = (runs[0].path if len(runs) == 1 else Path.cwd()) / "report.html"
    place = Path(expanded(str(output), "output")) if output else default
    save(place, render(runs))
    return place.resolve()


def save(place: Path, page: str) -> None:
    """Write a page atomically. Raises `InputError` if it can't be written."""
    if not place.name or place.is_dir():
        raise InputError("output", str(place), "a file that can be written", "it is a directory")
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError("output", str(place), "a file that can be written", str(error)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def render(runs: Sequence[Run]) -> str:
    """Return the page as HTML."""
    from raysgd_local.report import charts, figures

    return rendered(
        "page.html.j2",
        runs=runs,
        colours=[charts.colour(index) for index in range(len(runs))],
        headline=figures.headline(runs),
        differences=figures.differences(runs) if len(runs) > 1 else [],
        charts=_charts(runs),
        events=[figures.events(run) for run in runs],
        configs=[_yaml(run) for run in runs],
    )


def rendered(template: str, **values: object) -> str:
    """Fill in one of this package's templates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raysgd_local", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _charts(runs: Sequence[Run]) -> list[Chart]:
    from raysgd_local.report import charts, timeline

    metrics = dict.fromkeys(name for run in runs for name in run.metrics if len(run.evals))
    found = []
    if not all(map(_timing_only, runs)):
        found += [
            Chart("Loss against time", charts.loss_over(runs, "elapsed_s", "training time (s)")),
            Chart("Loss against samples", charts.loss_over(runs, "total_samples", "samples, all workers")),
        ]
    found += [
        Chart(f"{name[:1].upper()}{name[1:]} on held-out data", charts.metric_over_time(runs, name))
        for name in metrics
    ]
    found.append(Chart("Averaging period τ", charts.tau_over_time(runs)))
    found.append(Chart("Workers", charts.workers_over_time(runs)))
    for run in (run for run in runs if not _timing_only(run)):  # membership doesn't change in timing-only runs
        title = "Who was in" if len(runs) == 1 else f"Who was in: {run.name}"
        found.append(Chart(title, timeline.membership(run.events), True, timeline.LEGEND))
    found.append(Chart("Where the time went", charts.where_time_went(runs), True, charts.TIME_COLOURS))
    return [chart for chart in found if chart.svg]


def _timing_only(run: Run) -> bool:
    """Whether the run was simulated without training."""
    return any(event.get("event") == EventName.TIMING_ONLY for event in run.events)


def _yaml(run: Run) -> str:
    import yaml

    return yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
