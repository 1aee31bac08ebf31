"""The context `ctx` of a training loop: the same for tasks and for the user's own loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.learning_rate import LearningRate
from raysgd_local.control.member import events as m
from raysgd_local.control.member import probing
from raysgd_local.control.messages import View
from raysgd_local.errors import InputError, UsageError
from raysgd_local.training import arguments
from raysgd_local.training.counted_samples import CountedSamples
from raysgd_local.training.data.loaded import Loaded
from raysgd_local.training.data.loading import DealtBatches, not_empty
from raysgd_local.training.epoch_batches import Batches
from raysgd_local.training.evaluation import Evaluation, Metrics
from raysgd_local.training.gathering import Gather
from raysgd_local.training.logged import logged
from raysgd_local.training.replica.replica import Joining, Prepared, Stateful
from raysgd_local.training.replica.selection import check_method, selection
from raysgd_local.training.shell import Shell
from raysgd_local.training.streams.choice import streamed

M = TypeVar("M", bound=nn.Module)
O = TypeVar("O", bound=torch.optim.Optimizer)  # noqa: E741
S = TypeVar("S", bound=LRScheduler | LearningRate | Callable[[float], float])


class TrainContext:
    """The training loop's access to the run.

    Prepare everything before the first `epochs`: there the worker receives the model, and a worker that joins later
    begins in the present epoch. Call every method from the thread that runs the loop. Any of them may end the worker,
    by an exception that is no `Exception` and must not be caught.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._begun = self._stops = False
        self._epoch = -1  # the epoch that the loop is in
        self._entered = False  # whether the loop took batches, or a step, in it
        self._batches: Batches | None = None
        self._counted = CountedSamples()

    # Preparing.

    def prepare_model(self, model: M, buffers: dict[str, Literal["max", "keep"]] | None = None) -> M:
        """Move the model to this worker's device, average its parameters and buffers from now on, and return it.

        `buffers` maps names of integer and boolean buffers to a rule: the members' maximum (`max`, the default), or
        each member's own value (`keep`). Raises `UsageError` after the first `epochs`.
        """
        self._only_before("prepare_model")
        arguments.model(model)
        model = model.to(self.device)
        self._shell.replica.models.append(model)
        self._shell.replica.buffer_rules.update(buffers or {})
        return model

    def prepare_optimizer(self, optimizer: O, clip_grad_norm: float | None = None) -> O:
        """Let `step` take steps of this optimizer, and return it. Several may be prepared.

        Gradients whose norm over the optimizer's parameters exceeds `clip_grad_norm` are scaled down to that norm; if
        gradients are averaged, after the averaging. Raises `UsageError` after the first `epochs`.
        """
        self._only_before("prepare_optimizer")
        arguments.optimizer(optimizer)
        if clip_grad_norm is not None:
            validation.number("clip_grad_norm", clip_grad_norm, above=0)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._shell.replica.optimizers.append(Prepared(optimizer, clip_grad_norm, rates))
        return optimizer

    def prepare_scheduler(self, schedule: S) -> S:
        """Set the learning-rate schedule: torch's scheduler (or Hugging Face's), a `LearningRate`, or a function.

        The loop steps a torch scheduler as usual: each step, each epoch, or with an evaluation's metric
        (`ReduceLROnPlateau`). Checkpoints contain the scheduler's state, and workers that join receive it. Several may
        be prepared. A `LearningRate` or a function gives a factor by which each learning rate is multiplied. Its
        argument is the progress of all workers together, in epochs with a fraction (in samples, if the loop takes no
        data from `batches`).

        Raises `InputError` for anything else, and for a scheduler whose state can't be saved; `UsageError` after the
        first `epochs`.
        """
        self._only_before("prepare_scheduler")
        given: Any = schedule
        if isinstance(given, LRScheduler):
            count = sum(name.startswith("scheduler ") for name in self._shell.replica.registered)
            self.register(f"scheduler {count}", given)
            self._shell.replica.schedulers.add(given)
        elif isinstance(given, LearningRate) or callable(given):
            self._shell.stepper.schedule = given
        else:
            allowed = "a torch.optim.lr_scheduler, a LearningRate, or a function of epochs done"
            raise InputError("schedule", type(given).__name__, allowed)
        return schedule

    def prepare_scaler(self, scaler: torch.amp.GradScaler) -> torch.amp.GradScaler:
        """Use this loss scale for mixed precision, and return it.

        Call `scaler.scale(loss).backward()`; `step` unscales the gradients and updates the scale. Raises `UsageError`
        after the first `epochs`.
        """
        self._only_before("prepare_scaler")
        arguments.scaler(scaler)
        self._shell.replica.scaler = scaler
        return scaler

    def register(self, name: str, obj: Stateful, when_joining: Joining = "donor") -> None:
        """Keep an object of the user's, with `state_dict` and `load_state_dict`, in checkpoints.

        A worker that joins receives a member's state of it; with `when_joining="own"` it keeps its own. Raises
        `InputError` if the name is registered already, and `UsageError` after the first `epochs`.
        """
        self._only_before("register")
        arguments.registered(name, obj)
        if name in self._shell.replica.registered:
            raise InputError("name", name, "a name that is not registered yet")
        self._shell.replica.registered[name] = (obj, when_joining)

    def _only_before(self, what: str) -> None:
        if self._begun:
            raise UsageError(f"ctx.{what} comes before the first ctx.epochs: state has arrived already")

    def _only_after(self, what: str) -> None:
        """Before the first epoch this worker has no place in the run yet."""
        if not self._begun:
            raise UsageError(
                f"ctx.{what} is known from the first epoch on: prepare models and optimizers, then use it inside "
                "`for epoch in ctx.epochs(…)`"
            )

    @property
    def begun(self) -> bool:
        """Whether the loop has begun its first epoch."""
        return self._begun

    # Where am I.

    @property
    def rank(self) -> int:
        """This worker's place in the present view, from 0; it may change when the membership does."""
        self._only_after("rank")
        return self._shell.member.rank

    @property
    def view(self) -> View:
        """The present view: its number, and the members in rank order."""
        self._only_after("view")
        return self._shell.order.view

    @property
    def world_size(self) -> int:
        """The number of members of the present view."""
        self._only_after("world_size")
        return len(self.view.members)

    @property
    def device(self) -> torch.device:
        """This worker's device, on which `batches` yields its batches."""
        return self._shell.place.device

    @property
    def stopping(self) -> bool:
        """Whether training is over. Then `epochs` and `batches` end, and `step` does nothing."""
        self._only_after("stopping")
        return bool(self._shell.state.stopped)

    @property
    def probing(self) -> bool:
        """Whether the loop's present steps belong to a probe: they will be undone, and the same batches come again.

        Only schedules with the stability test have probes. A loop need not care about them.
        """
        self._only_after("probing")
        return probing.under_way(self._shell.member)

    def get_dataset_shard(self, name: str = "train") -> Any:
        """Return one of the trainer's `datasets`, for `batches`, which deals this worker its part.

        Raises `InputError` for a name that the trainer has no data set of.
        """
        datasets = self._shell.place.datasets
        if name not in datasets:
            allowed = ", ".join(sorted(datasets)) or "none: LocalSGDTrainer was given no datasets"
            raise InputError("name", name, f"one of the trainer's datasets: {allowed}")
        return datasets[name]

    # The loop.

    def epochs(self, total: int) -> Iterator[int]:
        """Yield the remaining epochs, from the present one up to `total`, counted from 0.

        The first call waits for the model. An epoch ends for all workers after the same round; with
        `rounds="across-epochs"` for each worker with its own samples, so others may still be in the one before.
        """
        total = arguments.whole_number("epochs", total, at_least=0)
        self._shell.epochs = total
        if not self._begun:
            self._begun = True
            self._shell.begin()
        while self._goes_on(total):
            self._epoch, self._entered = self._shell.member.loop_epoch, False
            yield self._epoch
            self._leave_epoch()
            if self._shell.member.loop_epoch == self._epoch and not self.stopping:
                self._pass_epoch(total)

    def _goes_on(self, total: int) -> bool:
        """Whether there is another epoch. If this loop has asked to stop, the others may have: then training ends."""
        if self._stops and not self.stopping and self._shell.member.loop_epoch < total:
            self._shell.drive(m.EpochWanted(0, total))
        return not self._shell.member.done and self._shell.member.loop_epoch < total

    def _pass_epoch(self, total: int) -> None:
        """Count an epoch in which the loop's body took no step."""
        self._shell.drive(m.EpochWanted(0, total))
        self._shell.drive(m.EpochLeft())

    def batches(
        self,
        dataset: Any,
        batch_size: int,
        *,
        transform: Any = None,
        on_bad_shard: Literal["fail", "skip"] = "fail",
        **loader_options: Any,
    ) -> Iterator[Any]:
        """Yield this worker's batches of the open epoch, on its device. Call it once in an epoch.

        If a worker dies, the others get its remaining samples. `dataset` is the same on all workers: map-style, or a
        stream, that is a source of shards (see `raysgd_local.sources`), a path, or a data set for which there is one.
        `batch_size` is in samples, for one worker. `loader_options` are those of torch's `DataLoader`, without the
        options that choose or order samples.

        Only for streams: `transform` makes samples of rows, a function, a `Transform` (`Pack`) or a list of these.
        With `on_bad_shard="skip"` a shard ends at the first row that can't be read.

        Raises `UsageError` outside of `epochs` and at a second call in an epoch, `ShardError` for a shard that can't be
        read, and `InputError` if the workers' data sets differ, or the checkpoint's from the present one.
        """
        if not self._begun:
            raise UsageError("ctx.batches belongs into a loop over ctx.epochs")
        if self._batches is not None:
            raise UsageError(
                "ctx.batches can be used once an epoch: join the data sets (torch.utils.data.ConcatDataset)"
            )
        batch_size = arguments.whole_number("batch_size", batch_size, at_least=1)
        stream = streamed(dataset, batch_size, transform, on_bad_shard, loader_options, self._shell)
        source = stream or self._map_style(dataset, batch_size, loader_options)
        self._shell.stream = stream or self._shell.stream
        self._shell.watch.start()
        self._entered = True
        self._shell.drive(m.EpochWanted(source.samples, self._shell.epochs, source.shards))
        self._batches = Batches(self._shell, source)
        return self._batches

    def _map_style(self, dataset: Dataset[Any], batch_size: int, loader_options: dict[str, Any]) -> DealtBatches:
        place, placement = self._shell.place, self._shell.place.algorithm.placement
        if place.restricted:
            dataset = self._shell.chunks.restrict(dataset)
        if placement.expand_batch:
            batch_size *= placement.copies_among(self.world_size)
        batches = DealtBatches(dataset, batch_size, place.seed, loader_options, placement)
        self._shell.stepper.epoch_samples = batches.samples
        return batches

    def step(
        self,
        loss: torch.Tensor | float,
        samples: int | None = None,
        *,
        optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None,
    ) -> None:
        """Take an optimizer step with the present gradients, zero them, and average if an averaging is due.

        `loss` is the mean loss over the step's samples, a scalar; a tensor stays on its device. `samples` is the number
        of these samples, by default all in the batches taken since the last step. `optimizer` names the prepared
        optimizers, one or several, that take this step; the others keep gradients and state. A further step on a batch
        has its weight, but no samples and no loss. Raises `UsageError` if no batch was taken and `samples` is not
        given, and `InputError` for an optimizer that was not prepared.
        """
        self._only_after("step")
        arguments.loss(loss)
        shell, state = self._shell, self._shell.state
        stepping = selection([prepared.optimizer for prepared in shell.replica.optimizers], optimizer)
        if stepping:
            check_method(shell.place.algorithm, shell.order.program, state.period.mode)
        taken = self._batches.take_unstepped() if self._batches else Loaded()
        due = self._counted.due(taken, samples, stepping)
        if state.stopped:
            return
        if not state.open and state.epoch != self._epoch:
            self._step_between_epochs(due)
            return
        if not state.open:
            self._begin_own_data()
        self._entered = True
        shell.loss.add(loss, due.samples)
        shell.replica.schedulers.step_begins(stepping)
        shell.interference.before_step(shell.replica)
        shell.step(due)
        shell.replica.schedulers.step_ends()
        shell.interference.after_step()

    def _step_between_epochs(self, due: m.StepDue) -> None:
        """Take a further step on an epoch's last batch, with which the epoch has ended for all workers.

        It must not begin the next epoch. See `rounds.step_between_epochs`.
        """
        self._shell.drive(replace(due, consumed=0))
        self._shell.stepper.drop(due.stepping)

    def _begin_own_data(self) -> None:
        """Begin the epoch of a loop that takes no data from `batches`."""
        if self._shell.order.program.probes:
            raise UsageError("the stability test tries batches twice: the loop has to take them from ctx.batches")
        self._shell.watch.start()
        self._shell.drive(m.EpochWanted(0, self._shell.epochs))

    def evaluate(
        self, metrics: Metrics, dataset: Dataset[Any], batch_size: int = 256, *, gather: Gather | None = None
    ) -> dict[str, float]:
        """Evaluate the averaged model on held-out data; return the metrics' means over all samples, equal on all.

        All workers call this, after the epoch's batches, and each evaluates a slice of `dataset`. If a worker left its
        batches early, the others first train on the rest. `metrics(model, batch)` returns a tensor (one value for each
        sample, or the batch's mean), or a dict of such tensors by name; its model is a list if several were prepared.

        For metrics that are no means over samples (F1, AUC) give `gather`: `metrics` then returns outputs, a tensor or
        a dict of tensors with a row for each sample, and `gather` gets those of all samples, in the data set's order,
        on the CPU, and returns a number or a dict of numbers. Every worker holds all outputs for that moment.
        """
        self._only_after("evaluate")
        arguments.evaluated(metrics)
        batch_size = arguments.whole_number("batch_size", batch_size, at_least=1)
        not_empty(dataset, "test set", "ctx.evaluate")
        self._leave_epoch()
        replica = self._shell.replica
        model = replica.models[0] if len(replica.models) == 1 else list(replica.models)
        self._shell.evaluation = Evaluation(
            metrics, model, tuple(replica.models), dataset, batch_size, self.device, gather
        )
        self._shell.drive(m.EvaluationDue())
        state = self._shell.state
        return {name: value for name, value in state.metrics if name in state.evaluated}

    def stop(self) -> None:
        """End training for all workers after this round.

        If all workers call it after an epoch's batches, for example by a metric of `evaluate`, training ends without
        another round: the model stays the one that was evaluated.
        """
        self._stops = True
        self._shell.post(m.StopAsked())

    def log(self, /, **values: Any) -> None:
        """A line in `events.jsonl` with this worker's name and the newest round.

        Values are numbers, texts, small tensors and arrays, lists and dicts of these; other objects are written as
        text. A field called `event`, `time_s`, `worker` or `round`, as the line's own, gets the prefix `log_`.
        """
        self._only_after("log")
        self._shell.log(logged(values))

    def finish(self) -> None:
        """End this worker's loop: wait until every worker's loop has ended, then end the worker."""
        if self._begun:
            self._leave_epoch()
            self._shell.drive(m.LoopFinished())

    def _leave_epoch(self) -> None:
        """Leave the epoch's batches. Other workers get the rest of them, and the epoch ends for all together."""
        self._shell.replica.schedulers.epoch_ends()
        if self._batches is not None:
            self._batches.leave()
            self._batches = None
        self._counted = CountedSamples()
        if self._leaves_now():
            self._shell.drive(m.EpochLeft())

    def _leaves_now(self) -> bool:
        """Whether the loop leaves an epoch. Where rounds go across epochs, it can leave each but once."""
        if not self._shell.state.epochs:
            return True
        return self._entered and self._shell.member.epoch == self._epoch
