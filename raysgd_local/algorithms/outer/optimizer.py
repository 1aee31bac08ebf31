"""Any `torch.optim` optimizer on the anchor: FedAvgM, FedAdam, DiLoCo's outer step and others."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.outer.base import Option, OuterStep
from raysgd_local.errors import InputError

OPTIMIZERS = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)
"""The classes of `torch.optim` that need nothing but a dense gradient."""


@dataclass(frozen=True)
class OuterOptimizer:
    """Take a step of a `torch.optim` optimizer on the anchor, with the mean step g = anchor − mean as its gradient.

    SGD with a rate of 1 is plain averaging.

    FedOpt: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 [K]: FedAvgM is SGD with momentum (Hsu, Qi,
    Brown, 2019), FedAdam Adam with eps 1e-3 (torch corrects the bias, the paper does not). DiLoCo: Douillard et al.,
    2023 [F]: SGD, rate 0.7, Nesterov momentum 0.9; its first step on a constant g is 1.33 g, the limit 7 g.

    Raises InputError for an unknown name or a rate that is not above 0.

    >>> OuterOptimizer("SGD", lr=0.7, options={"momentum": 0.9, "nesterov": True}).step(workers=4, lr=0.1).options
    {'lr': 0.7, 'momentum': 0.9, 'nesterov': True}
    """

    name: str = "SGD"  # class of `torch.optim`
    lr: float = 1.0  # learning rate of the outer step
    options: dict[str, Option] = field(
        default_factory=dict
    )  # other arguments, by torch's names; weight_decay is 0

    def __post_init__(self) -> None:
        validation.one_of("name", self.name, OPTIMIZERS)
        validation.number("lr", self.lr, above=0)
        if "lr" in self.options:
            raise InputError("options", self.options, "the optimizer's arguments without lr", "lr has its own key")

    def step(self, workers: int, lr: float) -> OuterStep:  # noqa: ARG002
        return OuterStep(self.name, {"lr": self.lr, **self.options})
