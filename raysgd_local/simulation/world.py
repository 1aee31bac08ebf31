"""What a simulated worker needs of the fleet around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from raysgd_local.control.controller_events import Event
from raysgd_local.control.pulse import Beat
from raysgd_local.simulation.model import Shard
from raysgd_local.simulation.network import Network
from raysgd_local.simulation.watch import Watch

if TYPE_CHECKING:
    from raysgd_local.simulation.worker import Worker


class World(Protocol):
    """Time, the way to the controller, storage, and the one who sees everything."""

    network: Network
    watch: Watch
    now: float
    state_bytes: int

    def after(self, delay_s: float, worker: Worker, action: Any) -> None:
        """Do it in `delay_s` seconds, or later if the worker stands still then; never if it is dead."""
        ...

    def tell(self, worker: str, event: Event) -> None:
        """A word to the controller, after the sender's words before it."""
        ...

    def beat(self, beat: Beat) -> None:
        """A sign of life to the controller's shell; it may come late or never."""
        ...

    def step_s(self, worker: Worker) -> float: ...

    def io_s(self) -> float: ...

    def load(self, name: str) -> dict[int, Shard]: ...

    def ended(self, worker: Worker, why: str) -> None: ...

    def committed(self, round: int) -> None: ...
