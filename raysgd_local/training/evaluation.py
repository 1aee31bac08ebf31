"""Evaluate the averaged model: each member evaluates a slice of the data, then the sums are reduced by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from raysgd_local.errors import UsageError
from raysgd_local.training.data.batches import collate_of, to_device
from raysgd_local.training.data.loading import not_empty
from raysgd_local.training.gathering import Gather, gathered_metrics
from raysgd_local.training.metric_names import agreed, checked
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
    gather: Gather | None = None  # of all samples' outputs, which `metrics` then returns, to the metrics

    def run(
        self, transport: Transport, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> dict[str, float]:
        """Return for each metric its mean over the samples that have it, equal on all members.

        Members may find different names: they agree on all of them first. Waits for others in `waiting()`. With
        `gather`, return what it returns of all samples' outputs.
        """
        if self.gather is not None:
            together = self._gathered(self.gather, transport)
            with waiting():
                return together()
        sums = self._slice_sums(transport.rank, transport.world_size)
        with waiting():
            names = agreed(transport, tuple(sorted(sums)))
            parts = [part for name in names for part in sums.get(name, (0.0, 0.0))]
            flat = torch.tensor(parts, dtype=torch.float64, device=transport.device)
            if names:
                transport.all_reduce(flat)
        pairs = flat.cpu().view(-1, 2).tolist()  # (metrics, [sum, samples])
        return {name: total / samples for name, (total, samples) in zip(names, pairs, strict=True)}

    def _gathered(self, gather: Gather, transport: Transport) -> Callable[[], dict[str, float]]:
        start, stop = self._slice(transport.rank, transport.world_size)
        with _evaluating(self.modules), torch.no_grad():
            outputs = ((self.metrics(self.model, batch), size) for batch, size in self._batches(start, stop))
            return gathered_metrics(transport, gather, outputs)

    def _slice(self, rank: int, world_size: int) -> tuple[int, int]:
        size = len(self.dataset)  # type: ignore[arg-type]
        return size * rank // world_size, size * (rank + 1) // world_size

    def names(self) -> tuple[str, ...]:
        """Return the names of the metrics, by computing them on two samples."""
        not_empty(self.dataset, "test set", "the task")
        with _evaluating(self.modules), torch.no_grad():
            batch, _ = next(self._batches(0, min(2, len(self.dataset))))  # type: ignore[arg-type]
            return tuple(sorted(_means(self.metrics, self.model, batch)))

    def _slice_sums(self, rank: int, world_size: int) -> dict[str, list[float]]:
        """Return for each metric that this member's slice has [its sum, the samples that have it]."""
        sums: dict[str, list[float]] = {}
        with _evaluating(self.modules), torch.no_grad():
            for batch, samples in self._batches(*self._slice(rank, world_size)):
                for name, mean in _means(self.metrics, self.model, batch).items():
                    entry = sums.setdefault(name, [0.0, 0.0])
                    entry[0] += mean * samples
                    entry[1] += samples
        return sums

    def _batches(self, start: int, stop: int) -> Iterator[tuple[Any, int]]:
        if start == stop:
            return
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
    for key, value in found.items():
        name = checked(key)
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
