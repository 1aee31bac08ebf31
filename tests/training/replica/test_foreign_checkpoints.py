"""A checkpoint from elsewhere can't run code, however well its checksums are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from raysgd_local.algorithms.schedules import FixedPeriod
from raysgd_local.control.controller.checkpoints import CheckpointRecord, manifest
from raysgd_local.control.controller.events import ShardWritten
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.replicated.state import Replicated
from raysgd_local.errors import CheckpointError
from raysgd_local.run_files.manifest import MANIFEST, encoded
from raysgd_local.run_files.storage import Storage
from raysgd_local.training.replica import checkpoint_parts


class Burglar:
    """Unpickled, it makes a file."""

    def __init__(self, loot: Path) -> None:
        self.loot = loot

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.loot,))  # type: ignore[return-value]


def test_what_is_neither_a_tensor_nor_plain_is_refused_before_it_is_made(tmp_path):
    stream = io.BytesIO()
    torch.save({"model": torch.ones(2), "local": Burglar(tmp_path / "loot")}, stream)
    storage = Storage.at(str(tmp_path))
    checkpoint = storage.under("checkpoints")
    sha256 = checkpoint.write("000001/rank-0.pt", stream.getvalue())
    part = ShardWritten("000001", "w0", 0, "000001/rank-0.pt", sha256, len(stream.getvalue()))
    state = Replicated(FixedPeriod(2).init(), cursors=(0,), left_epoch=(False,))
    record = CheckpointRecord("000001", 1, 1, ("w0",), True, state, Ledger(), None, None)
    checkpoint.write(f"000001/{MANIFEST}", encoded(manifest(record, (part,))))
    with pytest.raises(CheckpointError, match="something other than tensors and plain values"):
        checkpoint_parts.load(storage, "000001", None, rank=0, world_size=1)
    assert not (tmp_path / "loot").exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    assert (tmp_path / "loot").exists()  # the checkpoint was a dangerous one
