"""A checkpoint from elsewhere can't run code, however well its checksums are."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
import torch

from raysgd_local.errors import CheckpointError
from raysgd_local.run_files.storage import MANIFEST, Storage
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
    checkpoint.write("mine/rank-0.pt", stream.getvalue())
    part = {"rank": 0, "path": "mine/rank-0.pt", "sha256": hashlib.sha256(stream.getvalue()).hexdigest()}
    checkpoint.write(f"mine/{MANIFEST}", json.dumps({"name": "mine", "shards": [part]}).encode())
    with pytest.raises(CheckpointError, match="something other than tensors and plain values"):
        checkpoint_parts.load(storage, "mine", None, rank=0, world_size=1)
    assert not (tmp_path / "loot").exists()
    torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    assert (tmp_path / "loot").exists()  # the checkpoint was a dangerous one
