"""A DataLoader's process that is killed: its batch is fetched again, unless that recurs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, get_worker_info

from raysgd_local.training.data import loading
from raysgd_local.training.standalone import alone


class Deadly(Dataset):
    """Sample 7 kills the process that loads it: at the first `times`."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = folder, times

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        died = len(list(self.folder.iterdir()))
        if index == 7 and get_worker_info() is not None and died < self.times:
            (self.folder / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return index, torch.rand(3)


def train(folder: Path, times: int, workers: int = 2) -> tuple[list[int], list[float]]:
    """The samples that one epoch steps on, and what augmentation drew for each."""
    ctx = alone()
    model = ctx.prepare_model(nn.Linear(3, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    stepped, drawn = [], {}
    for _ in ctx.epochs(1):
        for index, x in ctx.batches(Deadly(folder, times), batch_size=2, num_workers=workers):
            loss = model(x).mean()
            loss.backward()
            ctx.step(loss)
            stepped += index.tolist()
            drawn |= dict(zip(index.tolist(), x[:, 0].tolist(), strict=True))
    return stepped, [drawn[index] for index in sorted(drawn)]


def test_a_batch_whose_loader_process_was_killed_is_fetched_again(tmp_path, capsys):
    stepped, drawn = train(tmp_path, times=1)
    assert sorted(stepped) == list(range(12))
    assert len(list(tmp_path.iterdir())) == 1
    assert "loader_restarted=DataLoader worker (pid" in capsys.readouterr().out
    assert (stepped, drawn) == train(tmp_path, times=0, workers=0)


def test_a_batch_that_kills_every_process_that_loads_it_ends_in_the_loaders_error(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_DEATHS", 2)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        train(tmp_path, times=99)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_exception_in_a_loader_process_is_the_data_sets(tmp_path):
    class Broken(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            raise RuntimeError("no such file")

    ctx = alone()
    model = ctx.prepare_model(nn.Linear(3, 1))
    ctx.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in ctx.epochs(1):
        batches = ctx.batches(Broken(), batch_size=2, num_workers=1)
        with pytest.raises(RuntimeError, match="no such file"):
            next(batches)
