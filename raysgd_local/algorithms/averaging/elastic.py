"""Elastic averaging: EASGD and EAMSGD."""

from __future__ import annotations

from dataclasses import dataclass

from raysgd_local.algorithms import validation
from raysgd_local.algorithms.averaging.base import Averaging, Coupling


@dataclass(frozen=True)
class Elastic(Averaging):
    """Couple members elastically to a centre z: both move towards each other, and members stay apart.

        x_i ← x_i − α(x_i − z),  z ← z + α·m·Σ_j p_j (x_j − z),  α = beta/m

    computed from the old values, for m members; α changes with m unless `alpha` is given. It takes one all-reduce:
    every member has z and moves it identically. m·Σp_i x_i + z is conserved. **The model is z**: it is evaluated,
    saved, and given to joiners. Local momentum is kept; with Nesterov momentum in the task's optimizer this is EAMSGD.

    Zhang, Choromanska, LeCun, "Deep Learning with Elastic Averaging SGD", NeurIPS 2015 [S]; there beta is 0.9 and
    the period about 10 [K]. Stable for 0 < α < 2/(m+1) [D].

    Raises InputError unless 0 < beta < 1, and 0 < alpha < 1 if it is given.

    >>> Elastic(beta=0.8).coupling(workers=4)
    Coupling(pull=0.2, push=0.8)
    """

    beta: float = 0.9  # β = α·m
    alpha: float | None = None  # α for any number of members; None: beta/m

    def __post_init__(self) -> None:
        validation.number("beta", self.beta, above=0, below=1)
        if self.alpha is not None:
            validation.number("alpha", self.alpha, above=0, below=1)

    def coupling(self, workers: int) -> Coupling:
        alpha = self.beta / workers if self.alpha is None else self.alpha
        return Coupling(pull=alpha, push=alpha * workers)
