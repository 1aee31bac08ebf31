"""Order a data set so that its chunks have different labels, to study methods on unequal data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def dirichlet_order(labels: Ints, bounds: Sequence[int], alpha: float, seed: int) -> Ints:
    """Return sample indices, (n,), so that each chunk c, positions bounds[c] to bounds[c + 1], has its own label mix.

    Each chunk draws its label proportions from a Dirichlet distribution around those of the data set, with
    concentration `alpha`. If a label is used up, others fill the gap. Equal arguments give equal orders.

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
    """Return the number of samples of each label, `size` in all: in proportion to `shares`, as far as `left` allows."""
    taken = np.minimum(np.floor(shares * size).astype(np.int64), left)
    while (missing := size - int(taken.sum())) > 0:
        room = left - taken
        likely = np.where(room > 0, shares + 1e-9, 0.0)
        more = np.minimum(np.ceil(likely / likely.sum() * missing).astype(np.int64), room)
        over = int(more.sum()) - missing
        for kind in np.argsort(likely, kind="stable"):  # take the excess from the least likely labels
            back = min(max(over, 0), int(more[kind]))
            more[kind] -= back
            over -= back
        taken += more
    return taken
