"""Draw scenarios from a seed."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from raysgd_local.algorithms.algorithm import Algorithm
from raysgd_local.algorithms.placement import ChunkPlacement, DisjointChunks, RedundantChunks
from raysgd_local.algorithms.schedules import AdaComm, AtEpoch, EveryStep, FixedPeriod, Schedule, Switch
from raysgd_local.control.controller.settings import CheckpointPolicy, Limit, Settings, Timeouts
from raysgd_local.control.replicated.balancing import Balance
from raysgd_local.control.replicated.program import Program
from raysgd_local.simulation.cluster.cluster_model import ClusterModel
from raysgd_local.simulation.cluster.step_times import Constant, Exponential, Pareto
from raysgd_local.simulation.engine.loop import LoopPlan
from raysgd_local.simulation.engine.scenario import Noise, Scenario
from raysgd_local.simulation.engine.streams import StreamPlan
from raysgd_local.simulation.search.random_faults import random_damage, random_faults
from raysgd_local.simulation.search.random_methods import random_method

QUICK = Timeouts(
    start_s=60.0,
    gather_s=2.0,
    heartbeat=Limit(2.0, 3.0, 10.0),
    straggler=Limit(20.0, 10.0, 150.0),
    arrival=Limit(10.0, 10.0, 20.0),
    beat_s=0.5,
    pause_s=40.0,
    errors_s=0.5,
    finish_s=10.0,
)


def random_scenario(seed: int, faults: int = 8, methods: bool = True) -> Scenario:
    """Draw the scenario of a seed: a cluster, a method, a loop, and up to `faults` faults.

    Without `methods` the method is a schedule alone, and all else is the same.
    """
    random = Random(seed)
    most, loop_random = random.randint(1, 6), Random(f"reading {seed}")
    loop = _with_wants(Random(f"wants {seed}"), _random_loop(random))
    loop = _with_stream(Random(f"stream {seed}"), loop)
    program = _random_program(random)
    method = random_method(Random(f"method {seed}"), program.schedule) if methods else Algorithm(program.schedule)
    settings = Settings(
        program=replace(
            program,
            schedule=method.schedule,
            averaging=method.averaging,
            batch_scale=_random_scales(Random(f"batches {seed}")),
            across_epochs=_across_epochs(seed, loop),
        ),
        workers_min=random.randint(1, max(1, most - 1)),
        workers_max=most,
        seed=seed,
        placement=_random_placement(random),
        local_data=random.random() < 0.3,
        max_failures=random.choice((0, 1, 3, -1)),
        max_losses=random.choice((None, None, None, 3)),
        timeouts=QUICK,
        checkpoints=_random_policy(random),
        interleave=loop_random.choice((1, 2, 4)),
        shuffle_window=loop_random.choice((1, 3, 16)),
    )
    drawn = random_faults(random, faults, events=random.choice((60, 300, 1500)))
    return Scenario(
        settings=settings,
        loop=loop,
        faults=(*drawn, *(random_damage(Random(f"damage {seed}"), 1500) if faults else ())),
        seed=seed,
        workers_a_node=random.choice((1, 1, 2, 3)),
        cluster=_random_cluster(random),
        noise=Noise(random.choice((0.001, 0.01, 0.1)), random.choice((0.0, 0.03)), random.choice((0.0, 0.05))),
        journal=random.random() < 0.1,
        method=method,
    )


def _random_cluster(random: Random) -> ClusterModel:
    mean_s = random.choice((0.02, 0.1, 0.5))
    return ClusterModel(
        steps=random.choice((Constant(mean_s), Exponential(mean_s), Pareto(mean_s / 2, 2.0))),
        speeds=random.choice(((), (), (1.0, 0.3))),
        latency_ms=random.choice((0.5, 10.0)),
        startup_s=random.choice((0.5, 3.0, 20.0)),
    )


def _random_loop(random: Random) -> LoopPlan:
    early = tuple(w for w in range(16) if random.random() < 0.4) if random.random() < 0.25 else ()
    if random.random() < 0.1:
        early = tuple(range(64))
    return LoopPlan(
        epochs=random.randint(1, 3),
        samples=random.choice((0, 3, 17, 40, 96)) if random.random() < 0.5 else random.randint(20, 120),
        batch_size=random.choice((1, 2, 4, 8)),
        evaluates=random.random() < 0.7,
        early=early,
        early_batches=random.randint(0, 3),
        own_steps=random.randint(1, 8),
        stop_step=random.randint(1, 20) if random.random() < 0.05 else 0,
    )


def _with_wants(random: Random, loop: LoopPlan) -> LoopPlan:
    """Draw, for a few seeds, loops that differ by rank, or end unusually."""
    if random.random() > 0.08:
        return loop
    workers = random.choice(((0,), (1,), (0, 1)))
    evaluates, epochs = random.random() < 0.3, random.randint(1, loop.epochs)
    kinds = (
        *(replace(loop, quits=workers, quits_after=epochs, evaluates=evaluates) for _ in range(3)),
        *(replace(loop, alone=workers) for _ in range(3)),
        replace(loop, stop_epoch=epochs),
        replace(loop, exits=workers, exit_step=random.randint(1, 12)),
        replace(loop, crashes=True, exit_step=random.randint(1, 6)),
    )
    return random.choice(kinds)


def _with_stream(random: Random, loop: LoopPlan) -> LoopPlan:
    """Draw, for a part of the seeds, a stream in place of a map-style set."""
    if not loop.samples or random.random() > 0.4:
        return loop
    shards = random.choice((1, 2, 3, 5, 8, 20))
    lengths = tuple(random.choice((0, 1, 7, random.randint(0, 2 * loop.samples // shards))) for _ in range(shards))
    if not any(lengths):
        lengths = (loop.samples, *lengths[1:])
    transform = random.choice(("", "", "filter", "split", "pack"))
    return replace(loop, stream=StreamPlan(lengths, random.random() < 0.4, transform))


def _across_epochs(seed: int, loop: LoopPlan) -> bool:
    if loop.stream is not None:
        return Random(f"epochs of a stream {seed}").random() < 0.4
    return Random(f"epochs {seed}").random() < 0.5


def _random_schedule(random: Random) -> Schedule:
    fixed = FixedPeriod(random.choice((1, 2, 3, 5, 50)))
    kinds: list[Any] = [
        fixed,
        fixed,
        EveryStep(),
        AdaComm(tau0=random.choice((2, 6, 16)), interval_s=random.choice((0.5, 3.0))),
        Switch(EveryStep(), fixed, AtEpoch(1)),
        Switch(fixed, EveryStep(), AtEpoch(1)),
    ]
    schedule: Schedule = random.choice(kinds)
    return schedule


def _random_program(random: Random) -> Program:
    return Program(
        schedule=_random_schedule(random),
        segment_s=random.choice((0.3, 2.0, 5.0)),
        segment_rounds=random.choice((1, 3, 1_000_000)),
        max_steps=random.choice((None, None, None, 20)),
        max_s=random.choice((None, None, None, 4.0)),
        target=random.choice((None, None, None, ("accuracy", 0.93))),
        balance=random.choice((None, Balance(), Balance(window_rounds=2, window_s=0.1, hopeless=3.0))),
    )


def _random_scales(random: Random) -> tuple[float, ...]:
    return tuple(random.choice((0.5, 1.0, 2.5)) for _ in range(random.choice((0, 0, 0, 2, 6))))


def _random_placement(random: Random) -> ChunkPlacement:
    return DisjointChunks() if random.random() < 0.5 else RedundantChunks(random.randint(2, 3))


def _random_policy(random: Random) -> CheckpointPolicy:
    return CheckpointPolicy(
        every_epochs=random.choice((None, 1, 2)),
        every_s=random.choice((None, 1.0)),
        keep=random.choice((None, 1, 2)),
        everyone=random.random() < 0.6,
    )
