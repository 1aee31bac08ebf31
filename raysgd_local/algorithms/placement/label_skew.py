"""Data sets whose parts differ on purpose: which samples lie together when labels are spread unevenly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def dirichlet_order(labels: Ints, bounds: Sequence[int], alpha: float, seed: int) -> Ints:
    """The samples in an order in which chunk c, the positions from bounds[c] up to bounds[c + 1], has its own labels.

    Each chunk draws the shares of its labels from a Dirichlet distribution around the data set's own, with
    concentration `alpha`; where a label is used up, what is left makes up for it. Equal arguments, equal orders.

    Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    2019, section 2 [K]; chunks are of equal size there too.

    >>> dirichlet_order(np.array([0, 1, 0, 1]), (0, 2, 4), alpha=0.001, seed=0).tolist()
    [0, 2, 1, 3]
    """
    random = np.random.default_rng(seed)
    _, kinds, counts = np.unique(labels, return_inverse=True, return_counts=True)
    pools = [random.permutation(np.flatnonzero(kinds == kind)) for kind in range(len(counts))]
    prior, used = counts / counts.sum(), np.zeros(len(counts), dtype=np.int64)
    order = np.empty(len(labels), dtype=np.int64)
    for begin, end in pairwise(bounds):
        # Tiny concentrations underflow to zeros that can't be normalised.
        shares = random.dirichlet(np.maximum(alpha * prior * len(counts), 1e-3))
        taken = _taken(end - begin, shares, counts - used)
        parts = [pool[at : at + n] for pool, at, n in zip(pools, used, taken, strict=True)]
        order[begin:end] = np.concatenate(parts)
        used += taken
    return order


def _taken(size: int, shares: npt.NDArray[np.float64], left: Ints) -> Ints:
    """How many of each label make up `size` samples: by `shares` as far as there are any, then by what is left."""
    taken = np.minimum(np.floor(shares * size).astype(np.int64), left)
    while (missing := size - int(taken.sum())) > 0:
        room = left - taken
        likely = np.where(room > 0, shares + 1e-9, 0.0)
        more = np.minimum(np.ceil(likely / likely.sum() * missing).astype(np.int64), room)
        over = int(more.sum()) - missing
        for kind in np.argsort(likely, kind="stable"):  # the least likely gives way
            back = min(max(over, 0), int(more[kind]))
            more[kind] -= back
            over -= back
        taken += more
    return taken
