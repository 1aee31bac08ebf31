"""Every recipe on Fashion-MNIST with real workers: accuracy, rounds, bytes, time, through a death, a join and a resume.

    python benchmarks/recipes.py [--recipes adacomm d-psgd] [--seeds 3] [--epochs 6] [--table FILE] [--keep DIR]

LeNet, 4 workers on this machine, equal samples for all recipes. In each run one worker is killed by SIGKILL after 3 s
and another one joins in its place; after half of the epochs the run ends, and is taken up again from its checkpoint.
Recipes whose paper's defaults don't fit so short a run are scaled to it, as the table's column says. Prints the table
for `docs/methods.md`, of means, but of seconds the median; the exit status is 1 if a run did not finish, lost samples,
or came out below 0.85.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.arguments import docstring_parser
from lib.clusters import elastic, local_cluster
from lib.run_directories import kept_or_temporary
from ray.train import RunConfig

from raysgd_local import (
    AdaComm,
    Algorithm,
    AtEpoch,
    Blocks,
    Dynamic,
    EveryStep,
    FixedPeriod,
    LocalSGDTrainer,
    Once,
    OuterOptimizer,
    Switch,
)
from raysgd_local.algorithms.recipes import RECIPES
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks import FashionMNIST, Optimizer

WORKERS, ENOUGH = 4, 0.85
SGD = Optimizer(lr=0.03, momentum=0.9, weight_decay=1e-4)


@dataclass(frozen=True)
class Trial:
    """What of a recipe is changed for this task, in words and in fact."""

    algorithm: Algorithm
    optimizer: Optimizer = SGD
    changed: str = ""


def trials() -> dict[str, Trial]:
    """Every recipe, as its paper says wherever that fits 6 epochs of 60,000 samples."""
    found = {name: Trial(recipe.algorithm) for name, recipe in RECIPES.items()}

    def change(
        name: str, changed: str, algorithm: dict[str, Any] | None = None, optimizer: Optimizer | None = None
    ) -> None:
        trial = found[name]
        changed_algorithm = replace(trial.algorithm, **(algorithm or {}))
        found[name] = Trial(changed_algorithm, optimizer or trial.optimizer, changed)

    change("adacomm", "intervals of 3 s", algorithm={"schedule": AdaComm(16, 3.0)})
    change(
        "post-local-sgd",
        "switch at epoch 2",
        algorithm={"schedule": Switch(EveryStep(), FixedPeriod(16), AtEpoch(2))},
    )
    change("swap", "switch at epoch 3", algorithm={"schedule": Switch(EveryStep(), Once(), AtEpoch(3))})
    change("hierarchical-sgd", "2 blocks", algorithm={"averaging": Blocks(count=2)})
    change("dynamic-averaging", "δ = 0.05", algorithm={"schedule": Dynamic(4, 0.05)})
    adamw = Optimizer(name="adamw", lr=1e-3)
    change("diloco", "τ = 50, AdamW", algorithm={"schedule": FixedPeriod(50)}, optimizer=adamw)
    change("eamsgd", "Nesterov 0.9", optimizer=Optimizer(lr=0.01, momentum=0.9, nesterov=True))
    change("bmuf", "lr 0.01", optimizer=replace(SGD, lr=0.01))
    change("fedavgm", "lr 0.01, no momentum in the task", optimizer=replace(SGD, lr=0.01, momentum=0.0))
    change("fednova", "lr 0.05", optimizer=replace(SGD, lr=0.05))
    adam = OuterOptimizer("Adam", 0.003, {"betas": [0.9, 0.99], "eps": 1e-3})
    change("fedadam", "outer.lr 0.003", algorithm={"outer": adam})
    return found


def trainer(name: str, trial: Trial, folder: Path, seed: int, epochs: int, chaos: str) -> LocalSGDTrainer:
    return LocalSGDTrainer(
        FashionMNIST(epochs=epochs, optimizer=trial.optimizer),
        algorithm=trial.algorithm,
        scaling_config=elastic(WORKERS),
        run_config=RunConfig(name=f"{name}-{seed}", storage_path=str(folder)),
        seed=seed,
        chaos=chaos,
    )


def run(name: str, trial: Trial, folder: Path, seed: int, epochs: int) -> Run:
    """Half of the epochs with a death and a join, then the rest from the checkpoint; what is there is not run again."""
    kept = folder / f"{name}-{seed}"
    if (kept / "result.json").exists() and reader.load(kept).result["epochs"] >= epochs:
        return reader.load(kept)
    shutil.rmtree(kept, ignore_errors=True)  # one that was broken off
    trainer(name, trial, folder, seed, max(1, epochs // 2), "kill:1@3s").fit()
    result = trainer(name, trial, folder, seed, epochs, "").fit(resume="auto")
    return reader.load(result.path)


def problems(found: Run, epochs: int) -> list[str]:
    result, kinds = found.result, [event["event"] for event in found.events]
    said = {
        f"status {result['status']}": result["status"] == "finished",
        f"{result['samples_lost']} samples lost": result["samples_lost"] == 0,
        f"{result['samples_repeated']} samples repeated": result["samples_repeated"] == 0,
        "nobody was killed": "worker_lost" in kinds,
        "nobody joined": kinds.count("worker_joined") > WORKERS,
        "nothing was resumed": "resumed" in kinds,
        f"{result['samples']} samples": result["samples"] == epochs * 60_000,
    }
    return [f"{found.name}: {what}" for what, holds in said.items() if not holds]


def row(name: str, trial: Trial, runs: Sequence[Run]) -> str:
    right = [found.result["eval"]["accuracy"] for found in runs]
    spread = f" ± {statistics.stdev(right):.3f}" if len(right) > 1 else ""
    rounds, sent = (statistics.mean(found.result[key] for found in runs) for key in ("rounds", "wire_bytes"))
    seconds = statistics.median(found.result["elapsed_s"] for found in runs)
    figures = f"{rounds:.0f} | {sent / 1e6:.0f} | {seconds:.0f}"
    return f"| `{name}` | {statistics.mean(right):.3f}{spread} | {figures} | {trial.changed} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--table", type=Path, help="write the table here too")
    parser.add_argument("--keep", type=Path, help="where run directories stay; it goes on from those")
    options = parser.parse_args(arguments)
    lines = [
        "| recipe | accuracy | rounds | MB sent | seconds | changed for this task |",
        "|---|---|---|---|---|---|",
    ]
    wrong: list[str] = []
    print("\n".join(lines), flush=True)
    with local_cluster(WORKERS), kept_or_temporary(options.keep, "recipes") as folder:
        for name, trial in trials().items():
            if name not in options.recipes:
                continue
            runs = [run(name, trial, folder, seed, options.epochs) for seed in range(options.seeds)]
            wrong += [what for found in runs for what in problems(found, options.epochs)]
            low = statistics.mean(found.result["eval"]["accuracy"] for found in runs) < ENOUGH
            wrong += [f"{name}: below {ENOUGH}"] if low else []
            lines.append(row(name, trial, runs))
            print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps({"wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
