"""Random augmentation by (seed, epoch, index), whichever way a data set is read."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, StackDataset, Subset, TensorDataset

from raysgd_local.tasks.memory import InMemory
from raysgd_local.training.data.augmentation import SeededSamples, draws_nothing
from raysgd_local.training.standalone import alone

SIZE = 24


class Noisy(Dataset):
    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()), np.random.rand(), random.random()], dtype=torch.float64)


class Batched(Noisy):
    """A list of samples at once, as Hugging Face's data sets."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Collated(Noisy):
    """Whole batches, which draw for all samples together."""

    def __getitems__(self, indices):
        return {"x": torch.cat([torch.tensor(indices)[:, None], torch.rand(len(indices), 3)], dim=1)}

    def collate(self, batch):
        return batch["x"]


class Cropped(TensorDataset):
    def __getitem__(self, index):
        return Noisy()[index]


class Labelled(StackDataset):
    def collate(self, rows):
        return torch.stack([x for x, _ in rows])


class Masked(Dataset):
    """Draws in its collate, as a collator for masked language models."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return float(index)

    def collate(self, rows):
        return torch.cat([torch.tensor(rows, dtype=torch.float64)[:, None], torch.rand(len(rows), 3)], dim=1)


SETS = {
    "items": Noisy(),
    "lists": Batched(),
    "whole batches": Collated(),
    "TensorDataset": Cropped(torch.zeros(SIZE)),
    "StackDataset": Labelled(Noisy(), torch.arange(SIZE)),
    "Subset": Subset(Batched(), range(SIZE)),
}


def indices(deal_number):
    return torch.randperm(SIZE, generator=torch.Generator().manual_seed(deal_number)).tolist()


def read(dataset, batch_size, epoch, order, seed=5):
    samples = SeededSamples(dataset, seed, epoch)
    collate = getattr(dataset, "collate", torch.stack)
    rows = [collate(samples.__getitems__(order[i : i + batch_size]).samples) for i in range(0, SIZE, batch_size)]
    return {(epoch, int(row[0])): tuple(row[1:].tolist()) for row in torch.cat(rows)}


@pytest.mark.parametrize("name", SETS)
def test_a_sample_s_augmentation_depends_on_seed_epoch_and_index_alone(name):
    one = read(SETS[name], 8, 0, indices(1)) | read(SETS[name], 8, 1, indices(2))
    assert len(one) == len(set(one.values())) == 2 * SIZE
    assert read(SETS[name], 5, 0, indices(3)) | read(SETS[name], 24, 1, indices(4)) == one
    assert read(SETS[name], 8, 0, indices(1), seed=6).values() != one.values()


@pytest.mark.parametrize(
    "dataset", [SETS["lists"], SETS["StackDataset"], Masked()], ids=["lists", "stack", "collate"]
)
@pytest.mark.parametrize("loaders", [0, 2])
def test_no_two_samples_are_augmented_alike_in_any_epoch_or_process(dataset, loaders):
    def run(batch_size):
        ctx = alone(seed=5)
        model = ctx.prepare_model(torch.nn.Linear(1, 1))
        ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.0))
        found = {}
        for epoch in ctx.epochs(3):
            for batch in ctx.batches(dataset, batch_size=batch_size, num_workers=loaders):
                found |= {(epoch, int(row[0])): tuple(row[1:].tolist()) for row in batch}
                ctx.step(0.0)
        return found

    one = run(4)
    assert len(one) == len(set(one.values())) == 3 * SIZE
    assert run(4) == one


def test_batches_leave_no_trace_in_the_generators():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for dataset in SETS.values():
        read(dataset, 8, 0, indices(1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_a_data_set_that_draws_nothing_is_read_in_whole_batches():
    class Counted(Batched):
        reads = 0

        def __getitems__(self, indices):
            self.reads += 1
            return [float(index) for index in indices]

    dataset = Counted()
    SeededSamples(dataset, 0, 0).__getitems__([3, 1, 2])
    assert dataset.reads == 1


def test_only_classes_that_are_known_to_draw_nothing_go_without_seeds():
    class Noised(InMemory):
        def __getitems__(self, indices):
            return tuple(tensor + torch.rand(()) for tensor in super().__getitems__(indices))

    plain = InMemory(torch.zeros(4))
    assert draws_nothing(plain)
    assert draws_nothing(Subset(TensorDataset(torch.zeros(4)), [1]))
    assert not draws_nothing(Noised(torch.zeros(4)))
    assert not draws_nothing(Cropped(torch.zeros(4)))
