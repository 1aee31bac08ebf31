"""A worker's part of checkpoints: copied while training stops, written while it goes on; and reading it back."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from raysgd_local.control.controller.events import CheckpointFailed, ShardWritten
from raysgd_local.control.messages import Save
from raysgd_local.errors import CheckpointError
from raysgd_local.run_files.checkpoint_survey import checked
from raysgd_local.run_files.manifest import Part, read_manifest
from raysgd_local.run_files.storage import Storage
from raysgd_local.training.ports import ControllerPort
from raysgd_local.training.replica import fit
from raysgd_local.training.replica.plain_values import check_plain, from_bytes, to_bytes
from raysgd_local.training.replica.replica import Replica, check_local_state
from raysgd_local.training.replica.rng import generators, set_generators

MODEL = "model.pt"


class ShardWriter:
    """Writes this worker's parts (shards) of checkpoints in the background, one at a time."""

    def __init__(
        self,
        worker: str,
        storage: Storage | None,
        link: ControllerPort,
        background: Executor | None = None,
        claim: str = "",
    ) -> None:
        self._worker, self._storage, self._link, self._claim = worker, storage, link, claim
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
            if self._claim and not self._storage.exists(self._claim):
                raise OSError("another command has taken the run over")
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

    Raises `CheckpointError` if a part is missing, damaged, or contains code, and `InputError` if it is of another
    model, other optimizers, or another method.
    """
    checkpoints = storage.under("checkpoints")
    parts = read_manifest(checkpoints.under(name)).parts
    own = rank if len(parts) == world_size else 0
    first = _state(checkpoints, parts[0])
    mine = first if own == 0 else _state(checkpoints, parts[own])
    with fit.refusing(name, replica, first.get("model")):
        replica.load_shared_state(first)
    fit.check_optimizers(name, replica, mine["local"])
    replica.load_local_state(mine["local"], joining=own != rank)
    replica.schedulers.load(mine["local"].get("schedulers", {}))
    if own == rank:
        with fit.refusing(name, replica):
            replica.load_own_state(mine["own"])
        set_generators(mine["generators"])


def _state(checkpoints: Storage, part: Part) -> dict[str, Any]:
    content = checked(checkpoints, part)
    try:
        return from_bytes(content)
    except Exception as error:  # torch's advice is to load it unsafely: that is not passed on
        kind = type(error).__name__
        why = f"{checkpoints.root}/{part.path} contains something other than tensors and plain values ({kind})"
        raise CheckpointError(why) from None
