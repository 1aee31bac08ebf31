"""The random search reaches every rare branch that has a mark."""

import os
from collections import Counter

import pytest

from raysgd_local.control import marks
from raysgd_local.simulation.search import seed_search


def test_the_search_says_which_marks_its_seeds_never_reach_whatever_process_tried_them(capsys):
    for jobs in (1, 2):
        assert seed_search.search(range(4), jobs, show_marks=True) == 0
    alone, together = (text.partition("\n") for text in capsys.readouterr().out.split("4 seeds in ")[1:])
    assert alone[2] == together[2]
    assert "marks never reached: " in alone[2]
    assert not any(name in alone[2].partition("marks never reached: ")[2] for name in marks.UNIT_TEST_ONLY)
    assert all(f"  {name}: {says}\n" in alone[2] for name, says in marks.MARKS.items())


def test_a_mark_that_every_seed_reached_is_not_missed():
    counts = Counter(marks.MARKS.keys())
    assert seed_search.told(counts, counts=False) == "marks never reached: none"
    del counts["crash_loop"]
    assert seed_search.told(counts, counts=False) == "marks never reached: crash_loop"


@pytest.mark.long
@pytest.mark.study
@pytest.mark.timeout(7200)
def test_20_000_seeds_reach_every_mark(capsys):
    """A mark that they don't reach: draw what leads there, without changing what older seeds draw, or say why not."""
    assert seed_search.search(range(20_000), os.cpu_count() or 1) == 0
    assert "marks never reached: none" in capsys.readouterr().out
