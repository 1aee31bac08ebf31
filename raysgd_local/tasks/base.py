"""A `Task` is the declarative form of a training loop: model, data and loss. Its loop uses only the public context."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.learning_rate import LearningRate
from raysgd_local.errors import InputError
from raysgd_local.tasks.optimizer import Optimizer
from raysgd_local.training.data.structure import parts_of, rebuilt

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

_MOST_LOADERS = 256


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, its data, its loss and its optimizer. For a task of your own subclass it, as a frozen dataclass.

    Write `make_model`, `datasets`, `loss`, and `metrics` if there is more to measure than the loss. Settings are the
    dataclass's fields, which a configuration's `task` section sets.
    """

    reports: ClassVar[tuple[str, ...]] = ("loss",)
    """The names that `metrics` returns, so that a sweep can check its metric before torch is loaded."""

    epochs: int = 10
    batch_size: int = 32  # samples of one worker in one forward pass
    accumulate: int = 1  # batches per optimizer step
    optimizer: Optimizer = Optimizer(lr=0.1)
    learning_rate: LearningRate = LearningRate()  # factor on `optimizer.lr` over epochs of training
    clip_grad_norm: float | None = None  # largest norm of the gradients; None: no clipping
    loader_workers: int = 0  # processes that load data, for each worker

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            validation.whole_number(name, getattr(self, name), at_least=1)
        validation.whole_number("loader_workers", self.loader_workers, at_least=0, at_most=_MOST_LOADERS)
        if self.clip_grad_norm is not None:
            validation.number("clip_grad_norm", self.clip_grad_norm, above=0)

    def check(self) -> None:
        """Raise `InputError` if the data set is missing. Runs before torch is loaded. By default does nothing."""

    def make_model(self) -> nn.Module:
        """Make a new model. Every worker calls it; then all start from one worker's weights."""
        raise NotImplementedError(f"{type(self).__name__} needs make_model()")

    def datasets(self) -> tuple[Dataset[Any], Dataset[Any]]:
        """Return the map-style training and test sets: the same on every worker and at every call.

        If a data set has `__getitems__(indices)`, it is called with whole batches; if it has `collate` too, that
        replaces torch's `default_collate`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs datasets()")

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the batch's mean loss, a scalar tensor with a gradient."""
        raise NotImplementedError(f"{type(self).__name__} needs loss()")

    def metrics(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return metrics of a batch of the test set by name: one value per sample, (B,), or the batch's mean, ().

        By default the loss. Runs in eval mode, without gradients, on the averaged model.
        """
        return {"loss": self.loss(model, batch)}

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the local optimizer. Override it for parameter groups."""
        return self.optimizer.make(parameters)

    def train(self, ctx: Any) -> None:
        """Run the training loop, on the same context that users' own loops have (`raysgd_local.get_context`)."""
        from raysgd_local.training import arguments  # which loads torch

        model = ctx.prepare_model(self.make_model())
        optimizer = self.make_optimizer(model.parameters())
        ctx.prepare_optimizer(optimizer, clip_grad_norm=self.clip_grad_norm)
        ctx.prepare_scheduler(self.learning_rate)
        train, test = arguments.two_sets(self.datasets())
        for name, dataset in (("training", train), ("test", test)):
            if hasattr(dataset, "__len__") and len(dataset) == 0:
                hint = f"of the task {type(self).__name__}: a wrong path, or a filter that leaves nothing?"
                raise InputError(f"{name} set", "0 samples", "a data set with at least one sample", hint)
        step_samples = self.batch_size * self.accumulate
        for _epoch in ctx.epochs(self.epochs):
            for batch in ctx.batches(train, batch_size=step_samples, num_workers=self.loader_workers):
                ctx.step(self.accumulate_gradients(model, batch))
            ctx.evaluate(self.metrics, test, batch_size=max(self.batch_size, 256))

    def accumulate_gradients(self, model: nn.Module, batch: Any) -> Tensor:
        """Add the gradient of the mean loss of `batch`, computed in parts of about `batch_size` samples.

        Returns that mean loss, detached. All samples of a step are drawn at once and split only here, so that an
        epoch can't end in the middle of a step.
        """
        from raysgd_local.training import arguments

        losses = []
        for share, part in split_batch(batch, self.batch_size):
            found = self.loss(model, part)
            arguments.gradient_loss(found)
            loss = found * share
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return sum(losses[1:], start=losses[0])


def split_batch(batch: Any, part_size: int) -> Iterator[tuple[float, Any]]:
    """Split a batch into equal parts of about `part_size` samples; yield each part's share of the samples, and itself.

    A batch is a tensor or list whose first dimension is the samples, or a tuple, mapping or dataclass of these.

    >>> list(split_batch(([1, 2, 3, 4], [5, 6, 7, 8]), 2))
    [(0.5, ([1, 2], [5, 6])), (0.5, ([3, 4], [7, 8]))]
    """
    samples = _samples(batch)
    parts = max(1, round(samples / part_size))
    if parts == 1:
        yield 1.0, batch
        return
    bounds = [samples * part // parts for part in range(parts + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield (stop - start) / samples, _slice(batch, start, stop)


def _samples(batch: Any) -> int:
    if _is_column(batch):
        return len(batch)
    return next((_samples(part) for part in parts_of(batch) or () if hasattr(part, "__len__")), 0)


def _slice(batch: Any, start: int, stop: int) -> Any:
    if not hasattr(batch, "__len__") and parts_of(batch) is None:
        return batch  # no samples in it
    return batch[start:stop] if _is_column(batch) else rebuilt(batch, lambda part: _slice(part, start, stop))


def _is_column(batch: Any) -> bool:
    """Whether it has an entry for each sample. Of lists the first dimension is the samples."""
    return isinstance(batch, list) or parts_of(batch) is None
