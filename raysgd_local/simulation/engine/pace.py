"""Record the workers' slowest steps: a check that no healthy worker is declared lost needs them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class StepPaces:
    """The longest step of any worker, and for each worker its longest series of steps without a gap, in seconds.

    >>> pace = StepPaces()
    >>> for began_s in (0.0, 2.0, 7.0):
    ...     pace.stepped("w0", began_s, 2.0)
    >>> pace.longest_step_s, pace.longest_stretch_s("w0"), pace.longest_stretch_s("w1")
    (2.0, 4.0, 0.0)
    """

    longest_step_s: float = 0.0
    _stretches: dict[str, float] = field(default_factory=dict)
    _open: dict[str, tuple[float, float]] = field(default_factory=dict)

    def stepped(self, worker: str, now: float, step_s: float) -> None:
        """Record a step that begins at `now` and takes `step_s`."""
        began_s, until_s = self._open.get(worker, (now, now))
        if now > until_s + 1e-9:
            began_s = now
        self._open[worker] = (began_s, now + step_s)
        self.longest_step_s = max(self.longest_step_s, step_s)
        self._stretches[worker] = max(self.longest_stretch_s(worker), now + step_s - began_s)

    def longest_stretch_s(self, worker: str) -> float:
        """Return the duration of the worker's longest series of steps; 0 if it took none."""
        return self._stretches.get(worker, 0.0)
