"""Hierarchical local SGD where averagings over all workers are slow: Lin, Stich, Patel, Jaggi, "Don't Use Large
Mini-Batches, Use Local SGD", ICLR 2020, section 5.

    python benchmarks/papers/hierarchical_delay.py DIR [--jobs 2] [--real]    # with RAYSGD_DATA; keeps results in DIR

An MLP of 200 hidden units on Fashion-MNIST, 32 images a step and worker, SGD with momentum 0.9, equal samples for all.
Workers are in blocks of two; blocks average after every H local steps, all workers after every Hᵇ of those: at most 16
steps apart in all rows but the last. To each averaging over all workers 0, 1 or 50 s are added, as the paper does.

Simulated: 16 workers in 8 blocks, 3 epochs, steps of 10 ms, 1 Gbit/s between nodes. The delay is part of the cluster's
description here. Without it each row is run with three seeds; with it with one, since it does not change what is
learned. Real, on this machine: 4 workers in 2 blocks, 2 epochs, 0 and 1 s, beside the same four simulated. There
an outer step that does nothing but wait is the delay: it is taken at averagings over all workers only.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import torch
from lib.arguments import docstring_parser
from lib.figures import STYLE, save
from matplotlib.figure import Figure

from raysgd_local import Algorithm, Blocks, FixedPeriod, Hierarchical, LocalSGDTrainer
from raysgd_local.config import Checkpoints, Config, Workers
from raysgd_local.report.charts import RUN_COLOURS
from raysgd_local.run.request import from_config
from raysgd_local.run.simulator import Conditions, simulate_run
from raysgd_local.run_files import reader
from raysgd_local.simulation.cluster.cluster_model import ClusterModel, Nodes
from raysgd_local.simulation.cluster.step_times import Constant
from raysgd_local.tasks import FashionMNIST, Optimizer

SHAPES = ((16, 1), (8, 2), (4, 4), (2, 8), (1, 16), (1, 1))  # H, Hᵇ: the first is local SGD, the last every step
REAL_SHAPES = ((16, 1), (4, 4), (1, 16))
DELAYS, REAL_DELAYS, SEEDS = (0, 1, 50), (0, 1), (0, 1, 2)
WORKERS, REAL_WORKERS, IN_A_BLOCK = 16, 4, 2
EPOCHS, REAL_EPOCHS, RATE, STEP_S = 3, 2, 0.1, 0.01
HERE = Path(__file__).parent


@dataclass(frozen=True)
class SlowBetween(ClusterModel):
    """A cluster on which a reduction of a whole model, over all workers, takes `delay_s` more than its links say.

    What blocks exchange is smaller than the model of `state_bytes`.
    """

    delay_s: float = 0.0
    state_bytes: int = 0

    def reduction_s(self, size_bytes: float, members: int) -> float:
        delay_s = self.delay_s if size_bytes >= self.state_bytes else 0.0
        return super().reduction_s(size_bytes, members) + delay_s


@dataclass(frozen=True)
class Pause:
    """An outer step that changes nothing and takes `seconds`: there is one at every averaging over all workers."""

    seconds: float

    def step(self, workers: int, lr: float) -> None:  # noqa: ARG002
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Job:
    """One run with H = `inside` and Hᵇ = `across`."""

    inside: int
    across: int
    delay_s: int
    seed: int
    workers: int = WORKERS
    real: bool = False

    @property
    def name(self) -> str:
        kind = "real" if self.real else "simulated"
        return f"{kind}-{self.workers}-H{self.inside}-Hb{self.across}-delay{self.delay_s}-seed{self.seed}"

    @property
    def shape(self) -> tuple[int, int]:
        return self.inside, self.across

    @property
    def algorithm(self) -> Algorithm:
        outer = Pause(self.delay_s) if self.real else None
        if self.across == 1:
            return Algorithm(schedule=FixedPeriod(self.inside), outer=outer)
        schedule = Hierarchical(FixedPeriod(self.inside), FixedPeriod(self.across))
        return Algorithm(schedule=schedule, averaging=Blocks(count=self.workers // IN_A_BLOCK), outer=outer)

    def config(self, storage: str) -> Config:
        epochs = REAL_EPOCHS if self.workers == REAL_WORKERS else EPOCHS
        optimizer = Optimizer(lr=RATE * self.workers / WORKERS, momentum=0.9)
        return Config(
            task=FashionMNIST(epochs=epochs, optimizer=optimizer, model="mlp"),
            algorithm=self.algorithm,
            workers=Workers(min=self.workers, max=self.workers, balance=False),
            checkpoints=Checkpoints(every_epochs=None),
            storage=storage,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Outcome:
    """Training seconds (virtual ones, if simulated), test accuracy, and rounds: over all workers, and all rounds."""

    seconds: float
    accuracy: float
    whole: int
    rounds: int


def run(folder: Path, job: Job) -> Outcome:
    """What became of the job; what is in `folder` is not run again."""
    path = folder / f"{job.name}.json"
    if not path.exists():
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as storage:
            path.write_text(json.dumps(asdict(outcome(job, storage))))
        print(f"{job.name}: done", flush=True)
    return Outcome(**json.loads(path.read_text()))


def outcome(job: Job, storage: str) -> Outcome:
    config = job.config(storage)
    if job.real:
        path = Path(LocalSGDTrainer.from_config(config).fit().path)
    else:
        path = simulate_run(from_config(config), Conditions(cluster(job)), report=False)
    ran = reader.load(path)
    whole = int((ran.rounds["scope"] == "global").sum())
    return Outcome(ran.result["elapsed_s"], ran.result["eval"]["accuracy"], whole, len(ran.rounds))


def cluster(job: Job) -> SlowBetween:
    """Nodes of two workers; between them 1 Gbit/s and, at averagings over all, the delay."""
    model = FashionMNIST(model="mlp").make_model()
    return SlowBetween(
        Constant(STEP_S),
        latency_ms=0.1,
        bandwidth_mbps=1000,
        nodes=Nodes(workers=IN_A_BLOCK),
        delay_s=job.delay_s,
        state_bytes=sum(parameter.nbytes for parameter in model.parameters()),
    )


def in_words(shape: tuple[int, int]) -> str:
    inside, across = shape
    if shape == (1, 1):
        return "every step"
    return f"local SGD, τ = {inside}" if across == 1 else f"H = {inside}, Hᵇ = {across}"


@dataclass(frozen=True)
class Study:
    """Outcomes by job, all of one kind."""

    outcomes: dict[Job, Outcome]

    def of(self, shape: tuple[int, int], delay_s: int, workers: int, real: bool = False) -> list[Outcome]:
        """A seed each."""
        wanted = (shape, delay_s, workers, real)
        return [
            found
            for job, found in self.outcomes.items()
            if (job.shape, job.delay_s, job.workers, job.real) == wanted
        ]

    def seconds(self, shape: tuple[int, int], delay_s: int, workers: int, real: bool = False) -> float:
        return fmean(found.seconds for found in self.of(shape, delay_s, workers, real))

    def accuracies(self, shape: tuple[int, int], workers: int) -> list[float]:
        """A seed each, of the simulated runs without delay."""
        return [found.accuracy for found in self.of(shape, 0, workers)]


def simulations() -> list[Job]:
    """Of all seeds without delay; with one seed 0 alone, for virtual time changes nothing of what is learned."""
    small = [Job(*shape, delay_s, 0, REAL_WORKERS) for shape in REAL_SHAPES for delay_s in REAL_DELAYS]
    learned = [Job(*shape, 0, seed) for shape in SHAPES for seed in SEEDS]
    return small + learned + [Job(*shape, delay_s, 0) for shape in SHAPES for delay_s in DELAYS if delay_s]


def real_runs() -> list[Job]:
    return [Job(*shape, delay_s, 0, REAL_WORKERS, real=True) for shape in REAL_SHAPES for delay_s in REAL_DELAYS]


def study(folder: Path, jobs: int, real: bool) -> Study:
    """Simulations side by side, real runs one after the other."""
    planned = simulations()
    with ProcessPoolExecutor(jobs) as pool:
        found = dict(zip(planned, pool.map(partial(run, folder), planned), strict=True))
    return Study(found | {job: run(folder, job) for job in real_runs() if real})


def tell(found: Study) -> None:
    print(f"{WORKERS} simulated workers in blocks of {IN_A_BLOCK}; seconds with {DELAYS} s of delay, accuracy")
    for shape in SHAPES:
        one = found.of(shape, 0, WORKERS)[0]
        times = " | ".join(f"{found.seconds(shape, delay_s, WORKERS):,.0f}" for delay_s in DELAYS)
        accuracies = ", ".join(f"{accuracy:.4f}" for accuracy in found.accuracies(shape, WORKERS))
        print(f"  {in_words(shape):20s} | {one.whole} of {one.rounds} over all | {times} | {accuracies}")


def tell_real(found: Study) -> None:
    print(f"{REAL_WORKERS} workers, seconds with {REAL_DELAYS} s of delay: real, and simulated")
    for shape in REAL_SHAPES:
        outcomes = [
            found.of(shape, delay_s, REAL_WORKERS, real)[0] for real in (True, False) for delay_s in REAL_DELAYS
        ]
        print(f"  {in_words(shape):20s} | " + " | ".join(f"{o.seconds:.1f} ({o.accuracy:.4f})" for o in outcomes))


def draw(found: Study) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained", facecolor="white")
        times, accuracies = figure.subplots(1, 2, sharey=True)
        places = range(len(SHAPES))
        for delay_s, colour in zip(DELAYS, RUN_COLOURS, strict=False):
            seconds = [found.seconds(shape, delay_s, WORKERS) for shape in SHAPES]
            times.plot(seconds, places, "o", color=colour, label=f"{delay_s} s added")
        times.set(xscale="log", xlabel="training time, s")
        times.set_yticks(list(places), [in_words(shape) for shape in SHAPES])
        times.invert_yaxis()
        times.legend(frameon=False)
        for place, shape in enumerate(SHAPES):
            each = found.accuracies(shape, WORKERS)
            accuracies.plot(each, [place] * len(each), "o", color="#94a3b8", markersize=4)
            accuracies.plot(fmean(each), place, "|", color=RUN_COLOURS[0], markersize=16, markeredgewidth=2.5)
        accuracies.set(xlabel="test accuracy (bar: mean of the seeds)")
        return figure


def main() -> None:
    parser = docstring_parser(__doc__)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--jobs", type=int, default=2, help="simulations side by side")
    parser.add_argument("--real", action="store_true", help="real workers too, some minutes more")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = study(options.folder, options.jobs, options.real)
    tell(found)
    if options.real:
        tell_real(found)
    save(draw(found), HERE / "hierarchical_delay.svg")


if __name__ == "__main__":
    main()
