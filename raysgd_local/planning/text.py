"""Format a plan for the terminal: the measurements, a line for each schedule, and periods worth trying."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysgd_local.config import Config
from raysgd_local.planning.forecast import (
    HALVINGS,
    Forecast,
    candidates,
    communication_s,
    forecasts,
    on_this_machine,
    timing_plan,
)
from raysgd_local.planning.timed import uneven
from raysgd_local.planning.workload import Workload, measure
from raysgd_local.quantities import duration, size
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.timing.plan import TimingPlan
from raysgd_local.tasks import task_name

_WIDTH = 110


def print_plan(config: Config, cluster: ClusterModel) -> None:
    """Measure the configured task on this machine, and print forecasts for it on `cluster`.

    Raises `InputError` for a task that can't be measured, and `UserCodeError` if the task's code raises.
    """
    workload = measure(config.task, threads=max(1, int(config.workers.cpus)), seed=config.seed)
    plan = timing_plan(config, on_this_machine(cluster, workload), workload)
    found = list(forecasts(plan))
    name = task_name(config.task).rpartition(":")[2]
    Console(width=_WIDTH, highlight=False).print(plan_text(name, plan, workload, found))


def plan_text(task: str, plan: TimingPlan, workload: Workload, found: Sequence[Forecast]) -> RenderableType:
    """Format the whole output of `plan`."""
    return Group(
        Text(_measured(workload)),
        Text(_asked(task, plan)),
        _table(found),
        Text(_periods(plan)),
        Text(_assumed(plan, found)),
    )


def _measured(workload: Workload) -> str:
    mean_s, median_s = statistics.fmean(workload.step_s), statistics.median(workload.step_s)
    return (
        f"Measured here, one worker alone: a step takes {_ms(mean_s)} (of {len(workload.step_s)} the mean; median "
        f"{_ms(median_s)}), an averaging moves {size(workload.state_bytes)} and takes {_ms(workload.round_s)} beside "
        "its link.\n"
    )


def _asked(task: str, plan: TimingPlan) -> str:
    epochs = f"{plan.loop.epochs} epoch{'' if plan.loop.epochs == 1 else 's'}"
    return (
        f"Asked: {task}, {epochs} on {plan.workers} workers, {_links(plan.cluster)}: a step takes "
        f"{_ms(plan.cluster.steps.mean_s)}, an averaging {_ms(communication_s(plan))}.\n"
    )


def _links(cluster: ClusterModel) -> str:
    rate = "unlimited bandwidth" if cluster.bandwidth_mbps is None else f"{cluster.bandwidth_mbps:g} Mbit/s"
    nodes = "" if cluster.nodes is None else f", {cluster.nodes.workers} workers a machine"
    return f"links of {rate} and {cluster.latency_ms:g} ms{nodes}"


def _table(found: Sequence[Forecast]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("schedule", no_wrap=True)
    for heading in ("rounds", "a round", "computing", "waiting", "communication", "whole run", "speed-up"):
        table.add_column(heading, justify="right")
    for one in found:
        shares = (one.compute_share, one.wait_share, one.communication_share)
        table.add_row(
            one.name,
            f"{one.rounds:,}",
            _ms(one.round_s),
            *(f"{share:.0%}" for share in shares),
            duration(one.elapsed_s),
            f"{found[0].elapsed_s / one.elapsed_s:.2f} x",
        )
    return table


def _periods(plan: TimingPlan) -> str:
    shares: dict[int, float] = {}
    for share, tau in candidates(plan).items():
        shares[tau] = min(share, shares.get(tau, share))
    tried = ", ".join(f"{tau} ({share:.0%})" for tau, share in shares.items())
    return (
        f"tau, or tau0, to try in a sweep: {tried}: the smallest with which communication takes at most so much of the "
        "time, D / (D + tau y), D an averaging, y a step.\n"
    )


def _assumed(plan: TimingPlan, found: Sequence[Forecast]) -> str:
    parts = [
        "Not in it: what a longer period costs in loss (all take the same samples; simulate learns), failures, "
        "evaluations, checkpoints, compression.",
        f"Assumed: the loss, which adacomm follows, falls evenly to a {2**HALVINGS}th over the run.",
    ]
    if uneven(plan.workers, plan.cluster):
        parts.append(
            "Workers of unequal speed wait for the slowest here; workers.balance would have them wait less."
        )
    if not any(one.name.startswith("adacomm") for one in found):
        parts.append("Schedules that change are left out: the run is too long to be simulated whole.")
    return "\n".join(parts)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
