"""Forecast the time of the configured task with each schedule on a cluster, by timing-only simulations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from raysgd_local.algorithms.schedules import (
    AdaComm,
    AtEpoch,
    AtFirstDecay,
    EveryStep,
    FixedPeriod,
    Schedule,
    Switch,
)
from raysgd_local.config import Config
from raysgd_local.control.control_slots import SLOT
from raysgd_local.control.data.deal import batch_bounds
from raysgd_local.planning.workload import Workload, measure
from raysgd_local.run.request import program
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Failures
from raysgd_local.simulation.cluster.loss_curve import HalvingLoss, LossCurve
from raysgd_local.simulation.cluster.step_times import SampledSteps
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.timing.lockstep import simulate_timing
from raysgd_local.simulation.timing.plan import TimingPlan, loop_over

PERIODS = (4, 16, 64)
SHARES = (0.5, 0.2, 0.1, 0.05)
HALVINGS = 4  # assumed halvings of the loss over the whole run

# steps per worker: longer runs are simulated in part, or (if their schedule changes, and even longer) not at all
_PART_STEPS, _WHOLE_STEPS = 5_000, 100_000


@dataclass(frozen=True)
class Forecast:
    """The forecast for one schedule. The three shares of the workers' time sum to 1."""

    name: str
    rounds: int
    elapsed_s: float  # training time of the whole run
    compute_share: float  # in local steps
    wait_share: float  # waiting for the slowest worker

    @property
    def communication_share(self) -> float:
        """Share of the time that is neither computing nor waiting."""
        return 1.0 - self.compute_share - self.wait_share

    @property
    def round_s(self) -> float:
        return self.elapsed_s / self.rounds


def on_this_machine(cluster: ClusterModel, workload: Workload) -> ClusterModel:
    """Fill in the cluster's open values with measurements of this machine, without failures and late arrivals."""
    said_steps = cluster.steps != ClusterModel().steps
    return replace(
        cluster,
        steps=cluster.steps if said_steps else SampledSteps(workload.step_s),
        round_ms=cluster.round_ms or 1000 * workload.round_s,
        warmup_s=cluster.warmup_s or workload.warmup_s,
        failures=Failures(),
        arrivals_s=(),
    )


def timing_plan(
    config: Config, cluster: ClusterModel, workload: Workload, loss: LossCurve | None = None
) -> TimingPlan:
    """Make the timing-only plan of the configured run. Without `loss`, the loss falls to a sixteenth over the run.

    `stop.target` has no effect because nothing is trained, nor has `workers.balance`: one simulated member stands for
    all, so they take equal numbers of steps.
    """
    task = config.task
    step_samples = task.batch_size * task.accumulate
    return TimingPlan(
        program=program(config.algorithm, config.stop, balance=False),
        workers=config.workers.max,
        cluster=cluster,
        loop=loop_over(workload.samples, task.epochs, step_samples, config.workers.max),
        state_bytes=workload.state_bytes,
        loss=loss or HalvingLoss(workload.samples * task.epochs / HALVINGS),
        learning_rate=task.learning_rate,
        lr=task.optimizer.lr,
        seed=config.seed,
    )


def timing_of(config: Config, cluster: ClusterModel, seed: int) -> TimingPlan:
    """Make the timing-only plan on exactly this cluster. Runs two steps of the task, to know the sizes of its data."""
    return replace(timing_plan(config, cluster, measure(config.task, steps=2, seed=config.seed)), seed=seed)


def forecasts(plan: TimingPlan) -> Iterator[Forecast]:
    """Forecast every-step, fixed periods, AdaComm, post-local SGD, and the plan's own schedule if it is another.

    For long runs, constant schedules are extrapolated from the first part, and changing ones are left out.
    """
    steady: dict[str, Schedule] = {"every step": EveryStep()}
    steady |= {f"fixed, tau {tau}": FixedPeriod(tau) for tau in PERIODS}
    found = {name: _steady(name, _with(plan, schedule)) for name, schedule in steady.items()}
    yield from found.values()
    own = plan.program.schedule
    changing = dict(_changing(plan, found["fixed, tau 16"].elapsed_s))
    known = [*steady.values(), *changing.values()]
    if own not in known:
        changing["as configured"] = own
    for name, schedule in changing.items():
        if _steps(plan) <= _WHOLE_STEPS:
            yield _whole(name, _with(plan, schedule))


def _changing(plan: TimingPlan, usual_s: float) -> Iterator[tuple[str, Schedule]]:
    own = plan.program.schedule
    adacomm = own if isinstance(own, AdaComm) else AdaComm(16, interval_s=float(f"{usual_s / 10:.2g}"))
    yield f"adacomm, tau0 {adacomm.tau0}, every {adacomm.interval_s:g} s", adacomm
    if plan.learning_rate.kind == "multistep":
        yield "post-local, 16 from the first decay", Switch(EveryStep(), FixedPeriod(16), AtFirstDecay())
    elif plan.loop.epochs > 1:
        middle = plan.loop.epochs // 2
        yield f"post-local, 16 from epoch {middle}", Switch(EveryStep(), FixedPeriod(16), AtEpoch(middle))


def candidates(plan: TimingPlan, shares: Sequence[float] = SHARES) -> dict[float, int]:
    """Return for each share the smallest τ at which communication takes at most this share of the time, D/(D + τ·y).

    D is the time of an averaging, y the mean time of a step.
    """
    steps = communication_s(plan) / plan.cluster.steps.mean_s
    return {share: max(1, math.ceil(steps * (1 - share) / share - 1e-9)) for share in shares}


def communication_s(plan: TimingPlan) -> float:
    """Return the time of an averaging: on the links, and for packing, checking and installing."""
    size_bytes = plan.state_bytes + 4 * SLOT * plan.workers
    return plan.cluster.reduction_s(size_bytes, plan.workers) + plan.cluster.round_s


def _with(plan: TimingPlan, schedule: Schedule) -> TimingPlan:
    """Return the plan with another schedule, without limits of time or target."""
    return replace(plan, program=replace(plan.program, schedule=schedule, max_s=None, target=None))


def _epoch_steps(plan: TimingPlan) -> int:
    """Return the steps of one worker in an epoch."""
    loop = plan.loop
    if not loop.samples:
        return loop.own_steps
    return len(batch_bounds(-(-loop.samples // plan.workers), 0, loop.batch_size))


def _steps(plan: TimingPlan) -> int:
    """Return the steps of one worker in the whole run."""
    steps, limit = plan.loop.epochs * _epoch_steps(plan), plan.program.max_steps
    return steps if limit is None else min(steps, -(-limit // plan.workers))


def _steady(name: str, plan: TimingPlan) -> Forecast:
    """Forecast a constant schedule. For a long run, simulate some epochs or a part of one, and extrapolate."""
    steps, epoch_steps = _steps(plan), _epoch_steps(plan)
    if steps <= _PART_STEPS:
        return _whole(name, plan)
    if epoch_steps > _PART_STEPS:
        loop = LoopPlan(1, 0, plan.loop.batch_size, evaluates=False, own_steps=_PART_STEPS)
    else:
        loop = replace(plan.loop, epochs=_PART_STEPS // epoch_steps)
    part = replace(plan, loop=loop, program=replace(plan.program, max_steps=None))
    found, times = _whole(name, part), steps / _steps(part)
    warmup_s = plan.cluster.warmup_s
    elapsed_s = warmup_s + (found.elapsed_s - warmup_s) * times
    return replace(found, rounds=round(found.rounds * times), elapsed_s=elapsed_s)


def _whole(name: str, plan: TimingPlan) -> Forecast:
    rows = simulate_timing(plan).rows
    elapsed_s = rows[-1].elapsed_s
    return Forecast(
        name=name,
        rounds=len(rows),
        elapsed_s=elapsed_s,
        compute_share=sum(row.compute_s for row in rows) / elapsed_s,
        wait_share=sum(row.wait_s for row in rows) / elapsed_s,
    )
