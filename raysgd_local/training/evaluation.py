"""Evaluate the averaged model: each member evaluates a slice of the data, then the sums are reduced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from raysgd_local.errors import UsageError
from raysgd_local.training.data.loading import collate_of, to_device
from raysgd_local.transport.contract import Transport

Metrics = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Evaluation:
    """The arguments of a call of `ctx.evaluate`. After the view breaks it can run again, with other slices."""

    metrics: Metrics  # of a model and a batch
    model: Any  # first argument of `metrics`: a module, or a list of modules
    modules: tuple[nn.Module, ...]  # to switch to evaluation mode
    dataset: Dataset[Any]  # of which each member evaluates a slice
    batch_size: int
    device: torch.device  # for the batches

    def run(
        self, transport: Transport, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> dict[str, float]:
        """Return the means over all samples of the data set, equal on all members. Waits for others in `waiting()`."""
        sums = self._slice_sums(transport.rank, transport.world_size)
        names = sorted(sums)
        flat = torch.tensor([part for name in names for part in sums[name]], dtype=torch.float64)
        flat = flat.to(transport.device)
        with waiting():
            transport.all_reduce(flat)
        pairs = flat.cpu().view(-1, 2).tolist()  # (metrics, [sum, samples])
        return {name: total / samples for name, (total, samples) in zip(names, pairs, strict=True)}

    def names(self) -> tuple[str, ...]:
        """Return the names of the metrics, by computing them on two samples."""
        with _evaluating(self.modules), torch.no_grad():
            batch, _ = next(self._batches(0, min(2, len(self.dataset))))  # type: ignore[arg-type]
            return tuple(sorted(_means(self.metrics, self.model, batch)))

    def _slice_sums(self, rank: int, world_size: int) -> dict[str, list[float]]:
        """Return for each metric [sum over this member's slice, size]. An empty slice needs a sample for the names."""
        size = len(self.dataset)  # type: ignore[arg-type]
        start, stop = size * rank // world_size, size * (rank + 1) // world_size
        counts = 1.0 if stop > start else 0.0
        sums: dict[str, list[float]] = {}
        with _evaluating(self.modules), torch.no_grad():
            for batch, samples in self._batches(start, max(stop, start + 1) if size else start):
                for name, mean in _means(self.metrics, self.model, batch).items():
                    entry = sums.setdefault(name, [0.0, 0.0])
                    entry[0] += mean * samples * counts
                    entry[1] += samples * counts
        return sums

    def _batches(self, start: int, stop: int) -> Iterator[tuple[Any, int]]:
        start = min(start, len(self.dataset) - 1)  # type: ignore[arg-type]
        loader = DataLoader(
            Subset(self.dataset, range(start, stop)),
            batch_size=self.batch_size,
            collate_fn=collate_of(self.dataset),
            generator=torch.Generator(),
        )
        bounds = range(start, stop, self.batch_size)
        for begin, batch in zip(bounds, loader, strict=True):
            yield to_device(batch, self.device), min(stop, begin + self.batch_size) - begin


def _means(metrics: Metrics, model: Any, batch: Any) -> dict[str, float]:
    """Return the means of a batch's metrics by name. Accepts values per sample or a mean, in a dict or alone."""
    found = metrics(model, batch)
    if not isinstance(found, Mapping):
        found = {getattr(metrics, "__name__", "metric"): found}
    means: dict[str, float] = {}
    for name, value in found.items():
        tensor = torch.as_tensor(value)
        if tensor.numel() == 0:
            raise UsageError(f"the metric {name!r} is empty; return a value for each sample, or their mean")
        means[name] = float(tensor.double().mean())
    return means


@contextmanager
def _evaluating(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    modes = [(module, module.training) for root in modules for module in root.modules()]
    for root in modules:
        root.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
