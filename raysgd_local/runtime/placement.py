"""Tell what a run's workers wait for, where Ray can't place them: the resources that others hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import ray

from raysgd_local.runtime.worker_group import Resources

_FIRST_AFTER_S, _EVERY_S = 5.0, 30.0
_WORKER, _DRIVER = "TrainWorker", "Driver"  # the classes of a run's own actors

Amounts = Mapping[str, float]


@dataclass(frozen=True)
class Shortage:
    """The resources that workers ask for, and those of the cluster."""

    waiting: int  # workers that are not placed
    wanted: int  # all workers of the run
    each: Amounts  # that one worker asks for
    free: Amounts  # in the cluster, or in the placement group of this run
    total: Amounts
    where: str = "the cluster"
    holders: tuple[str, ...] = ()  # other users of the cluster, in words

    def __str__(self) -> str:
        """Describe it in a line.

        >>> held = ("the actor Searcher",)
        >>> print(Shortage(2, 4, {"CPU": 1}, {"CPU": 0}, {"CPU": 2}, holders=held))
        waiting for Ray to place 2 of 4 workers: each asks for 1 CPU; 0 of the cluster's 2 CPU are free; \
may be held by the actor Searcher
        """
        asked = " and ".join(f"{amount:g} {name}" for name, amount in self.each.items())
        parts = [f"each asks for {asked}", *(self._free(name) for name in self.each)]
        parts += [f"may be held by {', '.join(self.holders)}"] if self.holders else []
        return f"waiting for Ray to place {self.waiting} of {self.wanted} workers: {'; '.join(parts)}"

    def _free(self, name: str) -> str:
        total, free = self.total.get(name, 0.0), self.free.get(name, 0.0)
        return f"{free:g} of {self.where}'s {total:g} {name} are free"


class PlacementWatch:
    """Looks at the cluster now and then, while workers' processes are awaited."""

    def __init__(self, resources: Resources, wanted: int) -> None:
        self._each, self._wanted = amounts(resources), wanted
        self._since_s: float | None = None
        self._looked_s = 0.0
        self.newest = ""

    def look(self, awaited: bool) -> str:
        """Return what workers wait for; empty in the first seconds, and if they are placed or not awaited."""
        now = monotonic()
        if not awaited:
            self._since_s, self.newest = None, ""
        elif self._since_s is None:
            self._since_s = self._looked_s = now
        elif now - self._looked_s > (_EVERY_S if self.newest else _FIRST_AFTER_S):
            self._looked_s, self.newest = now, self.now()
        return self.newest

    def now(self) -> str:
        """Return what workers wait for at this moment; empty if all are placed, or Ray does not answer."""
        try:
            shortage = _shortage(self._wanted, self._each)
        except Exception:  # the words are not worth the run
            return ""
        return str(shortage) if shortage.waiting else ""


def amounts(resources: Resources) -> dict[str, float]:
    """Return a worker's resources by Ray's names."""
    gpus = {"GPU": resources.num_gpus} if resources.num_gpus else {}
    return {"CPU": resources.num_cpus, **gpus, **(resources.custom or {})}


def _shortage(wanted: int, each: Amounts) -> Shortage:
    actors = list(_actors())
    job = ray.get_runtime_context().get_job_id()
    own = [actor for actor in actors if actor["ActorClassName"] == _WORKER and actor["JobID"] == job]
    waiting = sum(actor["State"] == "PENDING_CREATION" and not actor["Pid"] for actor in own)
    group = ray.util.get_current_placement_group()
    if group is not None:  # workers are placed in it, whatever is free elsewhere
        total: Counter[str] = Counter()
        for bundle in group.bundle_specs:
            total.update(bundle)
        placed = sum(actor["State"] in ("PENDING_CREATION", "ALIVE") for actor in own) - waiting
        free = {name: max(0.0, total[name] - placed * amount) for name, amount in each.items()}
        return Shortage(waiting, wanted, each, free, total, "this placement group")
    free, there = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Shortage(waiting, wanted, each, free, there, holders=_holders(actors))


def _actors() -> Iterable[dict[str, Any]]:
    state: Any = ray._private.state
    found: Mapping[str, dict[str, Any]] = state.actors()
    return found.values()


def _holders(actors: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Describe the other users of the cluster, as far as Ray tells: it doesn't count a task's or an actor's share."""
    groups = [
        f"the placement group {group['name'] or identity[:8]} of {_sum(group['bundles']):g} CPU"
        for identity, group in ray.util.placement_group_table().items()
        if group["state"] == "CREATED"
    ]
    alive = (actor["ActorClassName"] for actor in actors if actor["State"] == "ALIVE")
    kinds = Counter(name for name in alive if name not in (_WORKER, _DRIVER))
    others = [
        f"{count} actors {kind}" if count > 1 else f"the actor {kind}" for kind, count in kinds.most_common(5)
    ]
    return (*groups[:5], *others, "tasks")


def _sum(bundles: Mapping[int, Amounts]) -> float:
    return sum(float(bundle.get("CPU", 0.0)) for bundle in bundles.values())
