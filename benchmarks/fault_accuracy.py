"""Whether faults cost accuracy: RAYSGD_DATA=… python benchmarks/fault_accuracy.py kill --seeds 5

Fashion-MNIST, a small MLP, 4 real workers on this machine, momentum SGD, τ = 8, as many epochs with as without faults.
The learning rate follows the number of workers (`linear`): with fewer of them, each with the same batch, the same
samples make more rounds, and at a fixed rate a run that is short of workers for a while trains further. Says the
accuracies and losses on the test set at the end, by seed, and whether they are within noise of the undisturbed runs':
by no more than 2 standard errors of the difference and 0.5 points. Undisturbed runs that are in --keep already are not
run again.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.arguments import docstring_parser
from lib.clusters import Nodes, elastic, local_cluster
from lib.run_directories import finished, kept_or_temporary
from ray.train import RunConfig

from raysgd_local import Algorithm, FixedPeriod, LocalSGDTrainer, RedundantChunks
from raysgd_local.run_files import reader
from raysgd_local.run_files.reader import Run
from raysgd_local.tasks import FashionMNIST

EPOCHS, WORKERS = 8, 4
CHAOS = {
    "none": "",
    "kill": "kill:1@round=60; kill:3@round=180; kill:0@round=300",
    "stop": "stop:2@round=90; stop:1@round=270",
    "nan": "nan:1@round=60; nan:2@round=180; nan:0@round=300",
    "slow": "slow:2x2@round=60",
    "added": "",
}
"""An epoch has 59 rounds. `added`: half the workers at first, and another node with as many after 90 rounds."""


def train(fault: str, seed: int, folder: Path) -> Run:
    name = f"{fault}-{seed}"
    if (run := finished(folder / name)) is not None:
        return run
    here = WORKERS // 2 if fault == "added" else WORKERS
    usual = FashionMNIST().optimizer
    trainer = LocalSGDTrainer(
        FashionMNIST(model="mlp", epochs=EPOCHS, optimizer=replace(usual, lr=usual.lr / WORKERS)),
        algorithm=Algorithm(schedule=FixedPeriod(8), placement=RedundantChunks(2), lr_scaling="linear"),
        scaling_config=elastic(WORKERS),
        run_config=RunConfig(name=name, storage_path=str(folder)),
        seed=seed,
        chaos=CHAOS[fault],
    )
    with local_cluster(here) as address, ThreadPoolExecutor(1) as beside:
        fitted = beside.submit(trainer.fit)
        nodes = add(folder / name, address) if fault == "added" else None
        fitted.result()
        if nodes is not None:
            nodes.clear()
    return reader.load(folder / name)


def add(run: Path, address: str) -> Nodes:
    """Another node, once training is under way."""
    rounds = run / reader.ROUNDS
    while not rounds.exists() or rounds.read_text().count("\n") < 90:
        time.sleep(0.1)
    return Nodes(address, WORKERS // 2)  # Ray wants the main thread for it


def told(runs: Sequence[Run], metric: str) -> list[float]:
    return [float(run.evals[metric].iloc[-1]) for run in runs]


def within_noise(ours: Sequence[float], theirs: Sequence[float], most: float) -> bool:
    apart = abs(statistics.mean(ours) - statistics.mean(theirs))
    error = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    return apart <= 2 * error and apart <= most


def faults(runs: Sequence[Run]) -> dict[str, Any]:
    """That the faults happened, and what the ledgers say."""
    return {
        "fired": [sum(e["event"] == "chaos_fired" for e in run.events) for run in runs],
        "workers": [sorted(set(run.rounds["workers"].tolist())) for run in runs],
        "lost_or_repeated": [run.result["samples_lost"] + run.result["samples_repeated"] for run in runs],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = docstring_parser(__doc__)
    parser.add_argument("fault", choices=CHAOS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where run directories stay")
    options = parser.parse_args(arguments)
    with kept_or_temporary(options.keep, "accuracy") as folder:
        calm = [train("none", seed, folder) for seed in range(options.seeds)]
        disturbed = [train(options.fault, seed, folder) for seed in range(options.seeds)]
    accuracies = told(calm, "accuracy"), told(disturbed, "accuracy")
    within = within_noise(*accuracies, most=0.005)
    summary = {"fault": options.fault, **faults(disturbed), "accuracy": accuracies, "within_noise": within}
    print(json.dumps({**summary, "loss": (told(calm, "loss"), told(disturbed, "loss"))}))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
