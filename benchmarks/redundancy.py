"""What RI-SGD's redundant chunks are good for: python benchmarks/redundancy.py rounds|death

scikit-learn's digits sorted by class and cut into as many chunks as workers, so that each worker has few classes; each
worker has its own chunks alone (`data.access: local`); the same samples per step whatever the copies.

rounds: 10 workers, 1 to 3 copies, in virtual time: after how many rounds the averaged model's held-out loss is where
it is at the end with 1 copy; --figure draws that loss. death: 5 real workers, one killed for good after a third of the
run, its place in the cluster taken: accuracy on the classes that it alone would have held with 1 copy.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import ray
import torch
from lib.arguments import docstring_parser
from lib.clusters import elastic, free, local_cluster
from lib.figures import STYLE, save
from lib.run_directories import finished, kept_or_temporary
from matplotlib.figure import Figure
from ray.train import RunConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks
from raysgd_local.report.charts import RUN_COLOURS
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks import Digits, Optimizer
from raysgd_local.tasks.memory import InMemory

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class SortedDigits(Digits):
    """The digits with all zeros first, then all ones, and so on; evaluation also tells the share that is right of
    each class.
    """

    def datasets(self) -> tuple[InMemory, InMemory]:
        train, test = super().datasets()
        order = torch.argsort(train.tensors[1], stable=True)
        return InMemory(*(tensor[order] for tensor in train.tensors)), test

    def metrics(self, model: Any, batch: Any) -> dict[str, torch.Tensor]:
        right = model(batch[0]).argmax(1) == batch[1]
        of_class = {f"right_{c}": (right & (batch[1] == c)).float() for c in range(CLASSES)}
        return {**super().metrics(model, batch), **of_class}


def trainer(workers: int, copies: int, seed: int, epochs: int, tau: int, folder: Path, chaos: str = "") -> Any:
    return LocalSGDTrainer(
        SortedDigits(model="mlp", epochs=epochs, batch_size=8, optimizer=Optimizer(lr=0.02, momentum=0.0)),
        algorithm=Algorithm(schedule=FixedPeriod(tau), placement=RedundantChunks(copies, chunks=workers)),
        scaling_config=elastic(workers),
        run_config=RunConfig(
            name=f"copies-{copies}-seed-{seed}{'-death' if chaos else ''}", storage_path=str(folder)
        ),
        data_access="local",
        seed=seed,
        chaos=chaos,
    )


def simulated(copies: int, seed: int, folder: Path) -> Run:
    there = folder / f"copies-{copies}-seed-{seed}"
    return finished(there) or reader.load(trainer(10, copies, seed, 60, 18, folder).simulate().path)


def rounds(folder: Path, seeds: int, figure: Path | None) -> None:
    """For each number of copies the rounds to plain local SGD's last loss, and the losses at the end."""
    runs = {(copies, seed): simulated(copies, seed, folder) for copies in (1, 2, 3) for seed in range(seeds)}
    for copies in (1, 2, 3):
        needed, ends = [], []
        for seed in range(seeds):
            evals, goal = runs[copies, seed].evals, float(runs[1, seed].evals["loss"].iloc[-1])
            reached = evals[evals["loss"] <= goal]
            needed.append(float(reached["round"].iloc[0]) if len(reached) else float("inf"))
            ends.append(float(evals["loss"].iloc[-1]))
        print(json.dumps({"copies": copies, "rounds_to_goal": needed, "last_losses": np.round(ends, 4).tolist()}))
    if figure is not None:
        with mpl.rc_context(STYLE):
            save(draw(runs, seeds), figure)


def draw(runs: dict[tuple[int, int], Run], seeds: int) -> Figure:
    """Held-out loss against rounds: for each number of copies all seeds and their mean."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for copies, colour in zip((1, 2, 3), RUN_COLOURS, strict=False):
        evals = [runs[copies, seed].evals for seed in range(seeds)]
        for each in evals:
            axes.plot(each["round"], each["loss"], color=colour, linewidth=0.5, alpha=0.5)
        mean = np.mean([each["loss"] for each in evals], axis=0)
        axes.plot(evals[0]["round"], mean, color=colour, label=f"{copies} {'copy' if copies == 1 else 'copies'}")
        if copies == 1:
            axes.axhline(mean[-1], color="#94a3b8", linewidth=0.8, linestyle="--")
    axes.set(yscale="log", xlabel="rounds", ylabel="held-out loss of the averaged model")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    axes.legend(frameon=False)
    return figure


def death(folder: Path, seeds: int) -> None:
    """For each number of copies the accuracy on the classes of the chunk that is lost with one copy."""
    lost: dict[int, int] = {}
    for copies in (1, 2, 3):
        of_lost, of_others = [], []
        for seed in range(seeds):
            there = folder / f"copies-{copies}-seed-{seed}-death"
            run = finished(there) or killed(trainer(5, copies, seed, 60, 12, folder, chaos="kill:1@round=60"))
            right = class_accuracies(run)
            if seed not in lost:  # with one copy, which comes first
                lost[seed] = lost_chunk(run)
            classes = (2 * lost[seed], 2 * lost[seed] + 1)
            of_lost.append(float(np.mean([right[c] for c in classes])))
            of_others.append(float(np.mean([right[c] for c in range(CLASSES) if c not in classes])))
        told = {"on_its_classes": np.round(of_lost, 3).tolist(), "on_the_others": np.round(of_others, 3).tolist()}
        print(json.dumps({"copies": copies, **told, "samples_lost": run.result["samples_lost"]}))


def killed(asked: LocalSGDTrainer) -> Run:
    """The run, with somebody else waiting for the processor of the worker that dies."""
    done = threading.Event()
    waiting: list[Any] = []

    def wait() -> None:
        while not done.is_set():
            if not waiting and not free().get("CPU"):
                waiting.append(ray.remote(num_cpus=1)(_Other).remote())
            time.sleep(0.05)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    path = asked.fit().path
    done.set()
    thread.join()
    for other in waiting:
        ray.kill(other)
    return reader.load(path)


class _Other:
    """Another user of the cluster."""


def class_accuracies(run: Run) -> list[float]:
    """At the end, from the shares of all test samples that are right and of a class."""
    targets = SortedDigits().datasets()[1].tensors[1].numpy()
    last = run.evals.iloc[-1]
    return [float(last[f"right_{c}"]) / float(np.mean(targets == c)) for c in range(CLASSES)]


def lost_chunk(run: Run) -> int:
    """The chunk that nobody holds, by the newest checkpoint."""
    newest = sorted(path for path in (run.path / "checkpoints").iterdir() if (path / "manifest.json").exists())[-1]
    holders = json.loads((newest / "manifest.json").read_text())["placement"]["holders"]
    return next(chunk for chunk, workers in enumerate(holders) if not workers)


def main() -> None:
    parser = docstring_parser(__doc__)
    parser.add_argument("study", choices=("rounds", "death"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--figure", type=Path, help="draw the losses into this file")
    parser.add_argument("--keep", type=Path, help="where run directories stay")
    options = parser.parse_args()
    with kept_or_temporary(options.keep, "redundancy") as folder:
        if options.study == "rounds":
            rounds(folder, options.seeds, options.figure)
        else:
            with local_cluster(5):
                death(folder, options.seeds)


if __name__ == "__main__":
    main()
