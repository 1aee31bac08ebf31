"""Batches of any structure: collated by the data set's own function, and moved to the device whole."""

from __future__ import annotations

import dataclasses
import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import ConcatDataset, Dataset, Subset, random_split

from raysgd_local.errors import InputError
from raysgd_local.tasks.base import split_batch
from raysgd_local.tasks.memory import InMemory
from raysgd_local.training.data.batches import collate_of, to_device

META = torch.device("meta")
X = torch.zeros(2)


class Words(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.ones(1 + index % 5)

    def collate(self, rows):
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class Others(Words):
    def collate(self, rows):
        return rows


def test_a_data_set_s_collate_is_found_behind_parts_of_it():
    words = Words()
    part, _ = random_split(words, [30, 10])
    for dataset in (
        words,
        part,
        Subset(part, [1, 2]),
        ConcatDataset([part, words]),
        ConcatDataset([words, Words()]),
    ):
        assert collate_of(dataset).__func__ is Words.collate


def test_data_sets_that_collate_differently_are_not_joined():
    for other in (Others(), torch.utils.data.TensorDataset(X)):
        with pytest.raises(InputError, match="collate_fn="):
            collate_of(ConcatDataset([Words(), other]))


def test_collate_of_whole_batches_is_not_used_where_samples_are_read_one_by_one():
    data = InMemory(torch.arange(4.0), torch.arange(4))
    assert collate_of(Subset(data, [1, 2])) is InMemory.collate
    assert collate_of(ConcatDataset([data, data])) is None


Pair = namedtuple("Pair", "x y")


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    name: str = "kept"


@dataclasses.dataclass(slots=True)
class Slotted:
    x: torch.Tensor
    y: torch.Tensor = dataclasses.field(init=False)

    def __post_init__(self):
        assert self.x.device != META, "made anew"


class Encoding(UserDict):
    """As Hugging Face's `BatchEncoding`."""

    def __init__(self, data, encodings):
        super().__init__(data)
        self.encodings = encodings

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


class Batch:
    """As torch_geometric's `Data`."""

    def __init__(self, x):
        self.x = x

    def to(self, device):
        return Batch(self.x.to(device))


def test_tensors_in_a_batch_of_any_structure_get_to_the_device():
    for batch in (
        {"x": X},
        OrderedDict(x=X),
        defaultdict(list, x=X),
        UserDict(x=X),
        Encoding({"x": X}, ["kept"]),
        types.MappingProxyType({"x": X}),
    ):
        moved = to_device(batch, META)
        assert type(moved) in (type(batch), dict)
        assert moved["x"].device == META
    for batch in (Frozen(X), Slotted(X), Batch(X), Pair(X, X)):
        moved = to_device(batch, META)
        assert type(moved) is type(batch)
        assert moved.x.device == META
    assert to_device(Frozen({"deep": [X]}), META).x["deep"][0].device == META
    assert to_device(Frozen(X), META).name == "kept"
    assert to_device(pack_sequence([X]), META).data.device == META
    assert to_device(["text", 3, None], META) == ["text", 3, None]


def test_the_batch_that_the_loader_gave_is_not_changed():
    for batch in (UserDict(x=X), OrderedDict(x=X), Frozen(X)):
        to_device(batch, META)
        assert (batch.x if isinstance(batch, Frozen) else batch["x"]).device != META


@pytest.mark.parametrize(
    "batch", [UserDict(x=torch.arange(4)), Frozen(torch.arange(4)), Pair(torch.arange(4), [5] * 4)]
)
def test_a_batch_of_any_structure_is_split_for_accumulation(batch):
    parts = [part for _, part in split_batch(batch, 2)]
    firsts = [part["x"] if isinstance(part, UserDict) else part.x for part in parts]
    assert [first.tolist() for first in firsts] == [[0, 1], [2, 3]]
    assert {type(part) for part in parts} == {type(batch)}
