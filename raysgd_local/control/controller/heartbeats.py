"""Collect the workers' heartbeats, and return at any moment how long each worker has been silent.

`failure_detector` decides which workers are lost. Time comes as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from raysgd_local.control.controller.events import Heartbeat, SignOfLife
from raysgd_local.control.messages import Beat

_GAP_HALF_LIFE_S = 60.0


@dataclass(frozen=True)
class _Heard:
    beat: Beat
    at_s: float
    gap_s: float = 0.0


class Pulse:
    """Collects beats that should come every `beat_s`. `beat` may be called from another thread than the rest."""

    def __init__(self, beat_s: float, now: float) -> None:
        self._beat_s = beat_s
        self._known: set[str] = set()
        self._heard: dict[str, _Heard] = {}
        self._asked_s = self._awake_since = self._hears_since = now

    def expect(self, worker: str) -> None:
        """Take heartbeats of this requested worker from now on. Those of unknown workers are ignored."""
        self._known.add(worker)

    def beat(self, beat: Beat, now: float) -> None:
        """Take a heartbeat."""
        if beat.worker not in self._known:
            return
        before = self._heard.get(beat.worker)
        gap_s = 0.0
        if before is not None and before.beat.round_s:  # before its first round a worker loads and builds
            between_s = now - before.at_s
            gap_s = max(between_s, before.gap_s * 0.5 ** (between_s / _GAP_HALF_LIFE_S))
        self._heard[beat.worker] = _Heard(beat, now, gap_s)

    def forget(self, worker: str) -> None:
        """Ignore this worker from now on."""
        self._known.discard(worker)
        self._heard.pop(worker, None)

    def heartbeat(self, now: float) -> Heartbeat:
        """Return the signs of life. Call it every `beat_s`: a later call shows that the driver stood still."""
        heard = [one for one in list(self._heard.values()) if one.beat.worker in self._known]
        if now - self._asked_s > 3 * self._beat_s:
            self._awake_since = now
        if now - max((one.at_s for one in heard), default=now) > 4 * self._beat_s:
            self._hears_since = now
        self._asked_s = now
        signs = tuple(_sign(one, now) for one in heard)
        return Heartbeat(signs, now - self._awake_since, now - max(self._hears_since, self._awake_since))


def _sign(heard: _Heard, now: float) -> SignOfLife:
    age_s, beat = now - heard.at_s, heard.beat
    waits_s = beat.waits_s + age_s if beat.waits_s else 0.0
    call = beat.evaluating
    evaluating = None if call is None else replace(call, since_s=call.since_s + age_s)
    return SignOfLife(beat.worker, age_s, heard.gap_s, beat.view, beat.round_s, waits_s, evaluating)
