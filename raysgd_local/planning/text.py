"""A plan for a terminal: what was measured, a line a schedule, and periods that are worth a try."""

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
    SHARES,
    Forecast,
    candidates,
    communication_s,
    forecasts,
    on_this_machine,
    timing_plan,
)
from raysgd_local.planning.workload import Workload, measure
from raysgd_local.progress import duration
from raysgd_local.simulation.cluster_model import ClusterModel
from raysgd_local.simulation.timing import TimingPlan
from raysgd_local.tasks import task_name

_WIDTH = 110


def print_plan(config: Config, cluster: ClusterModel) -> None:
    """Measure the configured task on this machine and print what `cluster` would make of it.

    Raises `InputError` for a task that can't be measured, `UserCodeError` for what it raises.
    """
    workload = measure(config.task, threads=max(1, int(config.workers.cpus)), seed=config.seed)
    plan = timing_plan(config, on_this_machine(cluster, workload), workload)
    found = list(forecasts(plan))
    name = task_name(config.task).rpartition(":")[2]
    Console(width=_WIDTH, highlight=False).print(plan_text(name, plan, workload, found))


def plan_text(task: str, plan: TimingPlan, workload: Workload, found: Sequence[Forecast]) -> RenderableType:
    """Everything that `plan` says."""
    return Group(
        Text(_measured(workload)),
        Text(_asked(task, plan)),
        _table(found),
        Text(_periods(plan)),
        Text(_assumed(found)),
    )


def _measured(workload: Workload) -> str:
    mean_s, median_s = statistics.fmean(workload.step_s), statistics.median(workload.step_s)
    return (
        f"Measured here, one worker alone: {len(workload.step_s)} steps of {_ms(mean_s)} (median {_ms(median_s)}); "
        f"an averaging is of {workload.state_bytes / 1e6:.3g} MB and costs {_ms(workload.round_s)} beside its link."
    )


def _asked(task: str, plan: TimingPlan) -> str:
    return (
        f"Asked: {task}, {plan.loop.epochs} epochs on {plan.workers} workers, {_links(plan.cluster)}; "
        f"steps of {_ms(plan.cluster.steps.mean_s)}, averagings of {_ms(communication_s(plan))}.\n"
    )


def _links(cluster: ClusterModel) -> str:
    rate = "any bandwidth" if cluster.bandwidth_mbps is None else f"{cluster.bandwidth_mbps:g} Mbit/s"
    return f"links of {rate} and {cluster.latency_ms:g} ms"


def _table(found: Sequence[Forecast]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("schedule")
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
    taus = candidates(plan)
    tried = ", ".join(map(str, sorted(set(taus.values()))))
    shares = ", ".join(f"{share:.0%}: {taus[share]}" for share in SHARES)
    return (
        f"tau0 to try in a sweep: {tried}. From there on communication takes at most so much of the time: {shares}.\n"
        "The rule: the smallest tau with D / (D + tau y) at most the share; D an averaging, y a step."
    )


def _assumed(found: Sequence[Forecast]) -> str:
    parts = [
        f"Assumed: the loss falls evenly to a {2**HALVINGS}th over the run (adacomm follows it); nobody fails; "
        "evaluations and checkpoints are not in it."
    ]
    if not any(one.name.startswith("adacomm") for one in found):
        parts.append("Schedules that change are left out: the run is too long to be simulated whole.")
    return "\n".join(parts)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
