"""Streams of torch that name their shards."""

from __future__ import annotations

import pytest
from shards import broken_at, check_starts
from torch.utils.data import IterableDataset

from raysgd_local.sources import Source, TorchIterable, as_source


class Files(IterableDataset):
    """Three shards of numbers, the last of which can't be read from its row 2 on."""

    def __iter__(self):
        raise AssertionError("rows are read by shards")

    def shards(self):
        return [f"part-{number}" for number in range(3)]

    def open(self, shard, start):
        for row in range(start, 5):
            if (shard, row) == ("part-2", 2):
                raise FileNotFoundError(2, "no file", shard)
            yield f"{shard}:{row}"


class Counted(Files):
    def rows(self, shard):
        return 5


class Buggy(Files):
    def open(self, shard, start):
        yield 1
        raise ValueError("a bug in the user's code")


class Good(Files):
    def shards(self):
        return super().shards()[:2]


def test_shards_are_opened_at_any_row_and_their_length_is_unknown():
    rows = check_starts(TorchIterable(Good()))
    assert rows["part-1"] == [f"part-1:{row}" for row in range(5)]
    assert TorchIterable(Good()).rows("part-1") is None


def test_one_that_knows_lengths_is_a_source_by_itself():
    counted = Counted()
    assert isinstance(counted, Source)
    assert as_source(counted) is counted


def test_a_file_that_is_missing_is_named_with_shard_and_row():
    rows, error = broken_at(TorchIterable(Files()), "part-2", 1)
    assert (rows, error.why) == (["part-2:1"], "there is no such file")


def test_an_error_of_the_users_code_stays_what_it_is():
    with pytest.raises(ValueError, match="a bug in the user's code") as caught:
        list(TorchIterable(Buggy()).open("part-0", 0))
    assert type(caught.value) is ValueError
