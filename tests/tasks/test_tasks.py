"""The shipped tasks, and the loop that every task runs."""

from __future__ import annotations

import dataclasses
import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from raysgd_local.errors import InputError
from raysgd_local.tasks import Digits, FashionMNIST, Optimizer, Task, find_task, task_name
from raysgd_local.tasks.base import split_batch
from raysgd_local.tasks.memory import InMemory
from raysgd_local.tasks.vision import FILES


class OneProcess:
    """The context's calls that a task makes, for one worker: what it did is in `steps` and `evals`."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.evals: list[dict[str, float]] = []
        self.taken: list[int] = []
        self.model = nn.Module()

    def prepare_model(self, model: nn.Module) -> nn.Module:
        self.model = model
        return model

    def prepare_optimizer(self, optimizer: torch.optim.Optimizer, clip_grad_norm: float | None) -> None:
        self.optimizer, self.clip = optimizer, clip_grad_norm

    def prepare_scheduler(self, schedule: Any) -> None:
        self.schedule = schedule

    def epochs(self, count: int) -> Iterator[int]:
        yield from range(count)

    def batches(self, dataset: Any, batch_size: int, num_workers: int) -> Iterator[Any]:
        order = torch.Generator().manual_seed(len(self.steps))
        loader = DataLoader(
            dataset, batch_size, shuffle=True, generator=order, num_workers=num_workers, collate_fn=dataset.collate
        )
        for batch in loader:
            self.taken.append(len(batch[0]))
            yield batch

    def step(self, loss: torch.Tensor) -> None:
        assert not loss.requires_grad
        self.steps.append(loss.item())
        self.optimizer.step()
        self.optimizer.zero_grad()

    def evaluate(self, metrics: Callable[..., dict[str, torch.Tensor]], dataset: Any, batch_size: int) -> None:
        with torch.no_grad():
            batches = DataLoader(dataset, batch_size, collate_fn=dataset.collate)
            found = [metrics(self.model, batch) for batch in batches]
        self.evals.append({name: torch.cat([one[name] for one in found]).mean().item() for name in found[0]})


def train(task: Task) -> OneProcess:
    torch.manual_seed(0)
    context = OneProcess()
    task.train(context)
    return context


def test_digits_are_learned_within_few_epochs() -> None:
    assert train(Digits(epochs=8)).evals[-1]["accuracy"] >= 0.95


def test_the_small_cnn_learns_too() -> None:
    assert train(Digits(model="cnn", epochs=4)).evals[-1]["accuracy"] >= 0.9


def test_digits_are_split_the_same_way_every_time() -> None:
    (train_a, test_a), (train_b, test_b) = Digits().datasets(), Digits().datasets()
    assert (len(train_a), len(test_a)) == (1437, 360)
    for a, b in zip(train_a.tensors + test_a.tensors, train_b.tensors + test_b.tensors, strict=True):
        assert torch.equal(a, b)
    assert torch.bincount(test_a.tensors[1]).min() >= 35
    assert train_a.tensors[0].mean().abs() < 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line(Task):
    """A least-squares line in float64 on 11 samples."""

    epochs: int = 2
    batch_size: int = 4
    optimizer: Optimizer = Optimizer(lr=0.1)

    def make_model(self) -> nn.Module:
        return nn.Linear(1, 1).double()

    def datasets(self) -> tuple[InMemory, InMemory]:
        x = torch.linspace(-1, 1, 11, dtype=torch.float64)[:, None]
        return InMemory(x, 3 * x + 1), InMemory(x, 3 * x + 1)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def metrics(self, model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        return {"loss": (model(batch[0]) - batch[1]).square()}


def test_accumulation_equals_the_large_batch_to_the_epochs_last_sample() -> None:
    accumulated, large = train(Line(batch_size=2, accumulate=4)), train(Line(batch_size=8))
    assert accumulated.taken == large.taken == [8, 3, 8, 3]
    assert accumulated.steps == pytest.approx(large.steps, rel=1e-12)
    for a, b in zip(accumulated.model.parameters(), large.model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0)


def test_a_task_hands_over_its_clipping_and_learning_rate() -> None:
    context = train(Line(clip_grad_norm=0.5))
    assert context.clip == 0.5
    assert context.schedule == Line().learning_rate


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_named_optimizer_is_torchs(name: Any) -> None:
    made = Optimizer(name=name, lr=0.01, weight_decay=0.1).make(nn.Linear(1, 1).parameters())
    assert type(made).__name__.lower() == name
    assert made.defaults["lr"] == 0.01
    assert made.defaults["weight_decay"] == 0.1


def test_parts_of_a_batch_are_equal_and_miss_nothing() -> None:
    batch = {"x": torch.arange(11), "names": [str(i) for i in range(11)]}
    parts = list(split_batch(batch, 4))
    assert [len(part["names"]) for _, part in parts] == [3, 4, 4]
    assert torch.equal(torch.cat([part["x"] for _, part in parts]), batch["x"])
    assert sum(share for share, _ in parts) == pytest.approx(1)


def test_a_data_set_in_memory_gives_whole_batches_to_a_data_loader() -> None:
    data = InMemory(torch.arange(10.0), torch.arange(10))
    loader = DataLoader(data, batch_size=4, collate_fn=data.collate)
    assert [batch[1].tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_shipped_data_sets_work_in_a_plain_data_loader_with_any_collate_function() -> None:
    train, test = Digits().datasets()
    images, classes = next(iter(DataLoader(train, batch_size=5, shuffle=True)))
    assert images.shape == (5, 1, 8, 8)
    assert classes.shape == (5,)
    for loader in (DataLoader(test, batch_size=7), DataLoader(test, batch_size=7, collate_fn=list)):
        batch = next(iter(loader))
        rows = batch if isinstance(batch, list) and len(batch) == 7 else list(zip(*batch, strict=True))
        assert [int(row[1]) for row in rows] == test.tensors[1][:7].tolist()
        assert torch.equal(torch.stack([row[0] for row in rows]), test.tensors[0][:7])


def test_tasks_are_found_by_name_and_say_theirs() -> None:
    assert task_name(FashionMNIST(data_dir="x")) == "fashion-mnist"
    assert task_name(Line()).endswith(":Line")
    with pytest.raises(InputError, match="did you mean 'fashion-mnist'"):
        find_task("fashion_mnist")


def write_idx(raw: Path, images: int = 6) -> None:
    """Four packed files in the official form, with very few images."""
    raw.mkdir(parents=True)
    for name in FILES:
        pixels = 28 * 28 if "images" in name else 1
        shape = struct.pack(">3i", images, 28, 28) if pixels > 1 else struct.pack(">i", images)
        magic = bytes([0, 0, 8, 3 if pixels > 1 else 1])
        body = bytes(i % 10 for i in range(images) for _ in range(pixels))
        (raw / f"{name}.gz").write_bytes(gzip.compress(magic + shape + body))


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_idx(tmp_path / "data" / "FashionMNIST" / "raw")
    return tmp_path / "data"


def test_packed_files_are_read_without_a_change_to_their_directory(data_dir: Path) -> None:
    before = sorted(path.name for path in data_dir.rglob("*"))
    train_set, test_set = FashionMNIST(data_dir=str(data_dir)).datasets()
    assert train_set.tensors[0].shape == test_set.tensors[0].shape == (6, 1, 28, 28)
    assert train_set.tensors[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert train_set.tensors[0][5].unique().item() == pytest.approx((5 / 255 - 0.2860) / 0.3530)
    assert sorted(path.name for path in data_dir.rglob("*")) == before


def test_unpacked_files_are_read_where_they_are(data_dir: Path, tmp_path: Path) -> None:
    raw = data_dir / "FashionMNIST" / "raw"
    for name in FILES:
        (raw / name).write_bytes(gzip.decompress((raw / f"{name}.gz").read_bytes()))
    assert len(FashionMNIST(data_dir=str(data_dir)).datasets()[0]) == 6
    assert not (tmp_path / "cache").exists()


def test_several_processes_may_unpack_at_once(data_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from raysgd_local.tasks.archives import unpacked\n"
        "from raysgd_local.tasks.vision import FILES\n"
        "sys.stdin.readline(); place = unpacked(Path(sys.argv[1]), FILES)\n"
        "print(sum((place / name).stat().st_size for name in FILES))"
    )
    command = [sys.executable, "-c", code, str(data_dir / "FashionMNIST" / "raw")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    outputs = [process.communicate("go\n", timeout=60)[0].strip() for process in processes]
    assert outputs == [str(2 * (16 + 6 * 28 * 28) + 2 * (8 + 6))] * 4


def test_a_damaged_archive_is_bad_input(data_dir: Path) -> None:
    broken = data_dir / "FashionMNIST" / "raw" / f"{FILES[0]}.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"data_dir: .*undamaged files"):
        FashionMNIST(data_dir=str(data_dir)).datasets()


@pytest.mark.skipif(not os.environ.get("RAYSGD_DATA"), reason="RAYSGD_DATA names no data directory")
def test_the_real_fashion_mnist_is_whole() -> None:
    train_set, test_set = FashionMNIST().datasets()
    assert (len(train_set), len(test_set)) == (60_000, 10_000)
    assert train_set.tensors[0].mean().abs() < 1e-3
    assert train_set.tensors[0].std() == pytest.approx(1, abs=1e-3)
