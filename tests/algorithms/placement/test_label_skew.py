"""Label-skewed parts of a training set."""

from itertools import pairwise

import numpy as np
import pytest

from raysgd_local.algorithms.placement import LabelSkewed
from raysgd_local.algorithms.placement.label_skew import dirichlet_order
from raysgd_local.algorithms.placement.table import chunk_bounds
from raysgd_local.errors import InputError

LABELS = np.random.default_rng(0).integers(0, 10, size=6000)


def shares(alpha, seed=1, chunks=8):
    """Each chunk's shares of the labels, (chunks, labels)."""
    bounds = chunk_bounds(len(LABELS), chunks)
    order = dirichlet_order(LABELS, bounds, alpha, seed)
    assert sorted(order.tolist()) == list(range(len(LABELS)))
    parts = [LABELS[order[a:b]] for a, b in pairwise(bounds)]
    return np.array([np.bincount(part, minlength=10) / len(part) for part in parts])


def test_every_sample_lies_somewhere_once_and_small_concentrations_leave_few_labels_in_a_chunk():
    assert shares(100.0).max() < 0.2
    assert np.median(shares(0.1).max(axis=1)) > 0.5


def test_the_same_seed_gives_the_same_parts_and_another_seed_others():
    assert (shares(0.5, seed=1) == shares(0.5, seed=1)).all()
    assert (shares(0.5, seed=1) != shares(0.5, seed=2)).any()


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"chunks": 0}, {"alpha": float("nan")}])
def test_what_is_no_distribution_is_refused(options):
    with pytest.raises(InputError):
        LabelSkewed(**options)


def test_a_single_chunk_whose_labels_would_be_those_of_the_whole_set_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"chunks: 1 is not allowed.*labels are not skewed: one chunk per worker"):
        LabelSkewed(0.1, chunks=1)
