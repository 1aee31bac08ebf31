"""Rows that are consumed when steps were taken on some of the samples made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysgd_local.control.data.streams.row_count import RowCount, RowsConsumed


def transformed(pieces, pack, start=0):
    """Make pieces[i] pieces of row i and samples of `pack` pieces; return the samples' (row, piece) and the count."""
    flat = [(start + row, piece) for row, count in enumerate(pieces) for piece in range(count)]
    samples = [flat[i : i + pack] for i in range(0, len(flat), pack)]
    count = RowCount(start)
    for sample in samples:
        row, piece = sample[-1]
        count.emitted([row for row, _ in sample], complete=row + (piece + 1 == pieces[row - start]))
    count.ended(start + len(pieces))
    return samples, count


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(1, 5), st.integers(0, 9), st.integers(0, 99))
def test_rows_are_consumed_when_all_samples_of_them_are(pieces, pack, start, forgotten):
    samples, count = transformed(pieces, pack, start)
    count.forget(forgotten := forgotten % (len(samples) + 1))
    assert count.samples == len(samples)
    for stepped in range(forgotten, len(samples)):
        inside = {row for sample in samples[:stepped] for row, _ in sample}
        outside = {row for sample in samples[stepped:] for row, _ in sample}
        rows = min([*outside, max(inside) + 1]) if inside else start  # with those before them that gave no sample
        assert count.after(stepped) == RowsConsumed(rows, split=len(inside & outside))
    assert count.after(len(samples)) == RowsConsumed(start + len(pieces), split=0)


def test_rows_that_were_read_or_fetched_ahead_are_not_consumed():
    count = RowCount()
    for row in range(5):
        count.emitted([row], complete=row + 1)
    assert count.after(2).rows == 2


def test_a_packer_with_several_open_bins_consumes_up_to_the_first_row_that_waits():
    count = RowCount()
    count.emitted([0, 2], complete=1)  # row 1 waits in another bin
    count.emitted([3], complete=1)
    count.emitted([1, 4], complete=5)
    assert [count.after(samples) for samples in (1, 2, 3)] == [
        RowsConsumed(1, split=1),
        RowsConsumed(1, split=2),
        RowsConsumed(5, split=0),
    ]


def test_a_list_of_which_all_is_filtered_out_is_consumed_at_its_end():
    count = RowCount()
    assert count.after(0) == RowsConsumed(0, 0)
    count.ended(7)
    assert count.after(0) == RowsConsumed(7, 0)


@pytest.mark.parametrize("samples", [0, 3])
def test_counts_that_are_not_known_any_more_or_yet_are_refused(samples):
    count = RowCount()
    for row in range(2):
        count.emitted([row], complete=row + 1)
    count.forget(1)
    with pytest.raises(ValueError, match="neither fewer than 1 nor more than 2"):
        count.after(samples)
