"""Training loops and tasks that misbehave: each is a plain one in which one or two places were replaced."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import raysgd_local
from raysgd_local.tasks import Optimizer, Task


class Own(BaseException):
    """No `Exception`."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raises(error: BaseException) -> Any:
    raise error


def deep(level: int = 0) -> Any:
    return deep(level + 1)


ERRORS: dict[str, Callable[[], Any]] = {
    "ValueError": lambda: raises(ValueError("wrong")),
    "a long message": lambda: raises(RuntimeError("x" * 100_000)),
    "UnprintableError": lambda: raises(UnprintableError()),
    "StopIteration": lambda: raises(StopIteration()),
    "GeneratorExit": lambda: raises(GeneratorExit()),
    "sys.exit()": lambda: sys.exit(),
    "sys.exit('text')": lambda: sys.exit("text"),
    "exit 0": lambda: raises(SystemExit(0)),
    "BaseException": lambda: raises(Own("own")),
    "RecursionError": lambda: deep(),
    "MemoryError": lambda: raises(MemoryError()),
    "AssertionError": lambda: raises(AssertionError()),
    "InputError": lambda: raises(raysgd_local.InputError("mine", 3, "another")),
    "group": lambda: raises(ExceptionGroup("several", [ValueError("a"), TypeError("b")])),
    "UsageError": lambda: raises(raysgd_local.UsageError("mine")),
    "surrogate": lambda: raises(ValueError("\ud800 \x00 \x1b[31m")),
    "TransportError": lambda: raises(raysgd_local.TransportError("mine")),
}
VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a number": lambda: 3,
    "a text": lambda: "text",
    "a list": list,
    "a dict": dict,
    "a tuple of three": lambda: (1, 2, 3),
    "an object": object,
    "a class": lambda: nn.Linear,
    "a module": lambda: nn.Linear(2, 2),
    "no parameters": lambda: nn.Identity(),
    "NaN": lambda: torch.tensor(math.nan),
    "inf": lambda: torch.tensor(math.inf),
    "a scalar": lambda: torch.tensor(1.0),
    "a float": lambda: 0.5,
    "a vector": lambda: torch.ones(3),
    "a matrix": lambda: torch.ones(2, 2),
    "an empty tensor": lambda: torch.empty(0),
    "integers": lambda: torch.ones(2, dtype=torch.int64),
    "complex": lambda: torch.ones(1, dtype=torch.complex64),
    "an optimizer": lambda: torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1),
    "a generator": lambda: iter([1, 2]),
    "an empty set": lambda: TensorDataset(torch.empty(0, 2), torch.empty(0, 2)),
    "two empty sets": lambda: (TensorDataset(torch.empty(0, 2)), TensorDataset(torch.empty(0, 2))),
    "two sets of one column": lambda: (TensorDataset(torch.ones(5, 2)), TensorDataset(torch.ones(5, 2))),
    "two lists": lambda: ([1, 2, 3], [1, 2, 3]),
    "an iterable set": lambda: (Endless(), Endless()),
    "a set that lies": lambda: (Lies(), Lies()),
    "a set that changes": lambda: (Changes(), Changes()),
    "metrics with odd names": lambda: {"a,b\n$": torch.tensor(1.0), "": torch.tensor(2.0), "é": torch.tensor(0.0)},
    "metrics that are no tensors": lambda: {"a": "text", "b": None},
    "metrics with odd keys": lambda: {3: torch.tensor(1.0), None: torch.tensor(2.0)},
    "a metric of NaN": lambda: {"loss": torch.tensor(math.nan)},
    "a huge metric": lambda: {"loss": torch.ones(100_000)},
    "a negative number": lambda: -1,
    "a lambda": lambda: lambda *_: None,
}


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.ones(2), torch.ones(2)


class Lies(Dataset[Any]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        if index > 20:
            raise IndexError(index)
        return torch.ones(2), torch.ones(2)


class Changes(Lies):
    def __getitem__(self, index: int) -> Any:
        return torch.ones(2 + index % 2), torch.ones(2)


class Negative(Lies):
    def __len__(self) -> int:
        return -1


PLACES = (
    "make_model",
    "datasets",
    "loss",
    "metrics",
    "make_optimizer",
    "forward",
    "item",
    "step",
    "epochs",
    "log",
)
LATER = ("loss", "metrics", "forward", "item", "step", "log")


class Model(nn.Module):
    """A linear model whose `forward` may be replaced."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(2, 2), [act]

    def forward(self, x: torch.Tensor) -> Any:
        return self.act[0].at("forward", lambda: self.layer(x))


class Data(Dataset[Any]):
    """Forty samples; fetching one may be replaced."""

    def __init__(self, act: Act) -> None:
        self.act = act

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return self.act.at("item", lambda: (torch.full((2,), index / 40), torch.ones(2)))


@dataclass(frozen=True)
class Act:
    """Replaces the plain value in some places, from the given call on."""

    replaced: dict[str, tuple[str, int]]  # by place: the name of an error or a value, and the first call
    ranks: tuple[int, ...] | None = None  # on these ranks; None: on all

    def at(self, place: str, plain: Callable[[], Any]) -> Any:
        name, first = self.replaced.get(place, ("", 0))
        if not name or _counted(self, place) <= first or not self._here():
            return plain()
        return (ERRORS.get(name) or VALUES[name])()

    def _here(self) -> bool:
        if self.ranks is None:
            return True
        try:
            return raysgd_local.get_context().rank in self.ranks
        except raysgd_local.UsageError:
            return True


_calls: dict[tuple[int, str], int] = {}


def _counted(act: Act, place: str) -> int:
    key = (id(act), place)
    _calls[key] = _calls.get(key, 0) + 1
    return _calls[key]


@dataclass(frozen=True, kw_only=True)
class Misbehaves(Task):
    """A small regression in which some places are replaced."""

    act: Any
    epochs: int = 2
    batch_size: int = 5
    optimizer: Optimizer = Optimizer(lr=0.1)

    def make_model(self) -> Any:
        return self.act.at("make_model", lambda: Model(self.act))

    def datasets(self) -> Any:
        return self.act.at("datasets", lambda: (Data(self.act), Data(self.act)))

    def loss(self, model: Any, batch: Any) -> Any:
        return self.act.at("loss", lambda: ((model(batch[0]) - batch[1]) ** 2).mean() + 0.1)

    def metrics(self, model: Any, batch: Any) -> Any:
        return self.act.at("metrics", lambda: {"loss": ((model(batch[0]) - batch[1]) ** 2).mean(dim=1)})

    def make_optimizer(self, parameters: Any) -> Any:
        return self.act.at("make_optimizer", lambda: torch.optim.SGD(parameters, lr=0.1))


@dataclass(frozen=True)
class Loop:
    """The same as a loop of the user's, with the context's calls in odd orders and with odd arguments."""

    act: Act
    acts: tuple[str, ...]  # calls that are made beside

    def __call__(self) -> None:
        ctx, act = raysgd_local.get_context(), self.act
        task = Misbehaves(act=act)
        model = ctx.prepare_model(task.make_model())
        ctx.prepare_optimizer(task.make_optimizer(model.parameters()))
        self._beside(ctx, "before")
        train, test = task.datasets()
        for _ in ctx.epochs(act.at("epochs", lambda: 2)):
            for batch in ctx.batches(train, batch_size=5):
                loss = task.loss(model, batch)
                loss.backward()
                ctx.step(act.at("step", lambda: loss))  # noqa: B023
                ctx.log(value=act.at("log", lambda: 1))
                self._beside(ctx, "step")
            ctx.evaluate(task.metrics, test)
            self._beside(ctx, "epoch")

    def _beside(self, ctx: Any, when: str) -> None:
        for act in self.acts:
            moment, _, name = act.partition(" ")
            if moment == when:
                BESIDE[name](ctx)


BESIDE: dict[str, Callable[[Any], Any]] = {
    "rank": lambda ctx: ctx.rank,
    "step without samples": lambda ctx: ctx.step(0.1),
    "step of nothing": lambda ctx: ctx.step(0.1, samples=0),
    "negative samples": lambda ctx: ctx.step(0.1, samples=-3),
    "samples of text": lambda ctx: ctx.step(0.1, samples="x"),
    "batches of None": lambda ctx: ctx.batches(None, batch_size=2),
    "batches of nothing": lambda ctx: ctx.batches(TensorDataset(torch.empty(0)), batch_size=2),
    "batch size 0": lambda ctx: list(ctx.batches(TensorDataset(torch.ones(9, 2)), batch_size=0)),
    "batch size of text": lambda ctx: list(ctx.batches(TensorDataset(torch.ones(9, 2)), batch_size="x")),
    "odd loader options": lambda ctx: list(ctx.batches(TensorDataset(torch.ones(9, 2)), 3, no_such_option=3)),
    "evaluate None": lambda ctx: ctx.evaluate(None, None),
    "evaluate a number": lambda ctx: ctx.evaluate(3, TensorDataset(torch.ones(9, 2))),
    "evaluate in batches of -1": lambda ctx: ctx.evaluate(
        lambda m, b: b[0].mean(), TensorDataset(torch.ones(9, 2)), -1
    ),
    "epochs of text": lambda ctx: list(ctx.epochs("x")),
    "epochs None": lambda ctx: list(ctx.epochs(None)),
    "epochs in epochs": lambda ctx: list(ctx.epochs(2)),
    "prepare None": lambda ctx: ctx.prepare_model(None),
    "prepare a model": lambda ctx: ctx.prepare_model(nn.Linear(2, 2)),
    "prepare text": lambda ctx: ctx.prepare_optimizer("x"),
    "prepare an optimizer": lambda ctx: ctx.prepare_optimizer(
        torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    ),
    "clip at text": lambda ctx: ctx.prepare_optimizer(torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1), "x"),
    "schedule None": lambda ctx: ctx.prepare_scheduler(None),
    "schedule of text": lambda ctx: ctx.prepare_scheduler(lambda epoch: "x"),
    "schedule of NaN": lambda ctx: ctx.prepare_scheduler(lambda epoch: math.nan),
    "scaler None": lambda ctx: ctx.prepare_scaler(None),
    "scaler of text": lambda ctx: ctx.prepare_scaler("x"),
    "register None": lambda ctx: ctx.register("x", None),
    "register twice": lambda ctx: (ctx.register("y", nn.Linear(1, 1)), ctx.register("y", nn.Linear(1, 1))),
    "register a number": lambda ctx: ctx.register(3, nn.Linear(1, 1)),
    "log": lambda ctx: ctx.log(event=3, x=object(), y=float("nan"), z="\ud800"),
    "stop": lambda ctx: ctx.stop(),
    "finish": lambda ctx: ctx.finish(),
    "manual_seed": lambda ctx: torch.manual_seed(-1),
    "threads": lambda ctx: torch.set_num_threads(1),
    "rebuilt model": lambda ctx: ctx._shell.replica.models[0].add_module("later", nn.Linear(2, 2)),
    "deleted layer": lambda ctx: delattr(ctx._shell.replica.models[0], "layer"),
    "no gradients": lambda ctx: ctx._shell.replica.models[0].requires_grad_(False),
    "doubles": lambda ctx: ctx._shell.replica.models[0].double(),
    "NaN weights": lambda ctx: [p.data.fill_(math.nan) for p in ctx._shell.replica.models[0].parameters()],
}


@dataclass(frozen=True)
class Case:
    """A loop or a task, and what is odd about it, in words."""

    words: str
    loop: Any
    config: Any = None


def _function(count: int) -> Callable[..., None]:
    return [lambda: None, lambda a: None, lambda a, b: None, lambda *, a: None, lambda *a: None][count]  # type: ignore[return-value]


ODD_LOOPS: list[Any] = [
    *map(_function, range(5)),
    None,
    3,
    "text",
    Misbehaves,
    nn.Linear,
    nn.Linear(2, 2),
    print,
    len,
    lambda: (yield),
    Act({}),
    object(),
    [],
]


def case(seed: int) -> Case:
    """Return the loop or task with this number."""
    random = Random(f"misbehaving loops {seed}")
    if random.random() < 0.06:
        index = random.randrange(len(ODD_LOOPS))
        config = random.choice([None, {}, {"a": 1}, 3, [1]])
        return Case(f"odd loop {index}, {config!r}", ODD_LOOPS[index], config)
    names = [*ERRORS, *VALUES]
    replaced = {
        place: (random.choice(names), random.choice([0, 0, 3, 9]) if place in LATER else 0)
        for place in random.sample(PLACES, random.choice([0, 1, 1, 1, 2]))
    }
    act = Act(replaced, random.choice([None, None, (0,), (1,)]))
    if random.random() < 0.5:
        return Case(f"task {act}", Misbehaves(act=act))
    moments = ("before", "step", "epoch")
    acts = tuple(
        f"{random.choice(moments)} {random.choice(list(BESIDE))}" for _ in range(random.choice([0, 1, 1, 2]))
    )
    return Case(f"loop {act} {acts}", Loop(act, acts))
