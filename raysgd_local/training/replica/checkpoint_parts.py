"""A worker's part of checkpoints: copied while training stops, written while it goes on; and reading it back."""

from __future__ import annotations

import pickle
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from raysgd_local.control.controller.events import CheckpointFailed, ShardWritten
from raysgd_local.control.messages import Save
from raysgd_local.errors import CheckpointError
from raysgd_local.run_files.storage import MANIFEST, Storage, checked, read_manifest
from raysgd_local.training.ports import ControllerPort
from raysgd_local.training.replica.plain_values import check_plain, from_bytes, to_bytes
from raysgd_local.training.replica.replica import Replica, check_local_state
from raysgd_local.training.replica.rng import generators, set_generators

MODEL = "model.pt"


class ShardWriter:
    """Writes this worker's parts (shards) of checkpoints in the background, one at a time."""

    def __init__(
        self, worker: str, storage: Storage | None, link: ControllerPort, background: Executor | None = None
    ) -> None:
        self._worker, self._storage, self._link = worker, storage, link
        self._thread = background or ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def save(self, save: Save, replica: Replica, rank: int) -> None:
        """Copy this worker's part now, and write it later. Rank 0's part includes the model, which is equal on all.

        Raises `InputError` for state that could not be read back.
        """
        if rank > 0 and not save.everyone:
            return
        shard: dict[str, Any] = {"local": replica.local_state(), "generators": generators()}
        shard["own"] = replica.own_state()
        if rank == 0:
            shard.update(replica.shared_state())
        check_local_state(shard["local"])
        check_plain(shard.get("model"), "model")
        self._thread.submit(self._write, save, shard, rank)

    def _write(self, save: Save, shard: dict[str, Any], rank: int) -> None:
        path = f"{save.name}/rank-{rank}.pt"
        try:
            if self._storage is None:
                raise OSError("this run has no storage")
            content = to_bytes(shard)
            sha256 = self._storage.under("checkpoints").write(path, content)
            if save.final and "model" in shard:
                self._storage.write(MODEL, to_bytes(shard["model"]))
        except Exception as error:  # report any error of disk or network to the controller, and go on training
            self._link.tell(CheckpointFailed(save.name, f"{self._worker}: {error}"))
            return
        self._link.tell(ShardWritten(save.name, self._worker, rank, path, sha256, len(content)))

    def close(self) -> None:
        """Wait until all parts are written."""
        self._thread.shutdown(wait=True)


def load(storage: Storage, name: str, replica: Replica, rank: int, world_size: int) -> None:
    """Load checkpoint `name`: the model and this rank's local state (rank 0's if the number of members differs).

    Raises `CheckpointError` if a part is missing, damaged, or contains code.
    """
    checkpoint = storage.under("checkpoints")
    shards = {s["rank"]: s for s in read_manifest(checkpoint.under(name))["shards"]}
    own = rank if len(shards) == world_size else 0
    first = _shard(checkpoint, shards, 0)
    mine = first if own == 0 else _shard(checkpoint, shards, own)
    replica.load_shared_state(first)
    replica.load_local_state(mine["local"], joining=own != rank)
    replica.schedulers.load(mine["local"].get("schedulers", {}))
    if own == rank:
        replica.load_own_state(mine["own"])
        set_generators(mine["generators"])


def _shard(checkpoint: Storage, shards: dict[int, dict[str, Any]], rank: int) -> dict[str, Any]:
    entry = shards.get(rank)
    if entry is None:
        raise CheckpointError(f"{checkpoint.root}: the part of rank {rank} is not in the manifest")
    content = checked(checkpoint, entry["path"], entry["sha256"])
    try:
        return from_bytes(content)
    except pickle.UnpicklingError as error:
        why = f"{checkpoint.root}/{entry['path']} contains something other than tensors and plain values"
        raise CheckpointError(why) from error


def finished(storage: Storage) -> list[str]:
    """Return the names of finished checkpoints, oldest first."""
    checkpoints = storage.under("checkpoints")
    return [name for name in checkpoints.names() if checkpoints.exists(f"{name}/{MANIFEST}")]


def newest_good(storage: Storage) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return the manifest of the newest undamaged checkpoint (or None), and the names of damaged newer ones."""
    damaged: list[str] = []
    checkpoints = storage.under("checkpoints")
    for name in reversed(finished(storage)):
        try:
            return verified(checkpoints, name), tuple(damaged)
        except CheckpointError:
            damaged.append(name)
    return None, tuple(damaged)


def delete_after(storage: Storage, name: str, keep: tuple[str, ...]) -> tuple[str, ...]:
    """Delete checkpoints newer than `name`, finished or not, except `keep`; return their names."""
    checkpoints = storage.under("checkpoints")
    gone = tuple(later for later in checkpoints.names() if later > name and later not in keep)
    for later in gone:
        checkpoints.delete(later)
    return gone


def verified(checkpoints: Storage, name: str) -> dict[str, Any]:
    """Read all parts of a checkpoint and return its manifest. Raises `CheckpointError` if one is damaged."""
    plain = read_manifest(checkpoints.under(name))
    for entry in plain["shards"]:
        checked(checkpoints, entry["path"], entry["sha256"])
    return plain
