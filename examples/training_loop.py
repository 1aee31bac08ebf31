"""A training loop of one's own: torchvision's ResNet-18, unmodified, on scikit-learn's digits.

python examples/training_loop.py                # one worker in this process: plain Python, for a debugger
python examples/training_loop.py --workers 4    # the same loop on Ray, here or at RAY_ADDRESS

The state that workers average, BatchNorm's statistics included, follows the rules of docs/state.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from ray.train import RunConfig, ScalingConfig
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import TensorDataset, random_split
from torchvision.models import resnet18

from raysgd_local import AdaComm, Algorithm, LearningRate, LocalSGDTrainer, get_context


def train_loop(config: dict[str, Any]) -> None:
    """What every worker runs. Without `ctx` it would be the usual loop."""
    ctx = get_context()
    model = ctx.prepare_model(resnet18(num_classes=10))
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9, weight_decay=1e-4)
    ctx.prepare_optimizer(optimizer, clip_grad_norm=5.0)
    ctx.prepare_scheduler(LearningRate("cosine", epochs=config["epochs"]))
    train, test = datasets(config["samples"])
    for epoch in ctx.epochs(config["epochs"]):
        for inputs, targets in ctx.batches(train, batch_size=32):  # this worker's share
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            ctx.step(loss)  # steps, zeroes the gradients, averages when that is due
        metrics = ctx.evaluate(measure, test)  # the averaged model, each worker a slice
        if ctx.rank == 0:
            ctx.log(epoch=epoch, **metrics)


def measure(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    inputs, targets = batch
    return {"accuracy": (model(inputs).argmax(dim=1) == targets).float()}


def datasets(samples: int) -> Any:
    """`samples` of the digits for training and as many as are left, at most 360, for testing: (3, 32, 32) each."""
    pixels, classes = load_digits(return_X_y=True)  # (1797, 64), (1797,)
    images = torch.as_tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    images = F.interpolate(images, scale_factor=4).expand(-1, 3, -1, -1)
    data = TensorDataset(images, torch.as_tensor(classes))
    test = min(360, len(data) - samples)
    parts = random_split(data, (samples, test, len(data) - samples - test), torch.Generator().manual_seed(0))
    return parts[0], parts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=0, help="Ray workers; without, one in this process")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1437, help="size of the training set")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--storage", default="runs")
    options = parser.parse_args()
    config = {"epochs": options.epochs, "samples": options.samples, "lr": options.lr}
    if not options.workers:
        train_loop(config)
        return
    result = LocalSGDTrainer(
        train_loop_per_worker=train_loop,
        train_loop_config=config,
        algorithm=Algorithm(schedule=AdaComm(tau0=8, interval_s=5)),
        scaling_config=ScalingConfig(num_workers=options.workers),
        run_config=RunConfig(storage_path=options.storage),
    ).fit()
    print(result.metrics["eval"])
    print(result.path)


if __name__ == "__main__":
    main()
