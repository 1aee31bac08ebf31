"""The membership chart: workers as bars over time, with losses, faults, stalls and pauses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from raysgd_local.control.run_events import EventName
from raysgd_local.report.charts import svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR, LOST, LEFT, FAULT, STALL, PAUSE = "#3b82f6", "#ef4444", "#10b981", "#f59e0b", "#f43f5e", "#94a3b8"
LEGEND = {"member": BAR, "lost": LOST, "left": LEFT, "fault rehearsed": FAULT, "stall": STALL, "pause": PAUSE}
_MOST_NAMED = 24  # lanes; with more, the names would not be legible
_MOST_LANES = 200


@dataclass(frozen=True)
class TimelineSpan:
    """The time during which a worker was a member. Seconds count from the run's first event."""

    worker: str
    lane: int  # row in which it is drawn
    start_s: float
    stop_s: float
    end: str = ""  # `lost` or `left`; empty if it was a member to the end of the run
    reason: str = ""  # of the loss


@dataclass(frozen=True)
class Timeline:
    """The membership of a run over time. Seconds count from its first event, without the time between incarnations."""

    spans: tuple[TimelineSpan, ...] = ()
    stalls: tuple[tuple[float, float], ...] = ()  # (from, until)
    pauses: tuple[tuple[float, float], ...] = ()  # (from, until)
    faults: tuple[tuple[float, int, str], ...] = ()  # (time, lane, description); lane −1: no member's
    cuts: tuple[float, ...] = ()  # times at which the time between two incarnations is left out
    end_s: float = 0.0

    @property
    def lanes(self) -> int:
        return 1 + max((span.lane for span in self.spans), default=-1)


@dataclass
class _Reader:
    """Builds a timeline from the events, in order."""

    line: Timeline = field(default_factory=Timeline)
    open: dict[str, TimelineSpan] = field(default_factory=dict)  # present members
    left_out_s: float = 0.0  # time left out so far
    paused_s: float | None = None  # beginning of the present pause
    ended: bool = False

    def read(self, event: Mapping[str, Any], at_s: float) -> None:
        kind, worker = event.get("event"), str(event.get("worker", ""))
        match kind:
            case EventName.RESUMED if self.open or self.ended:
                self._begin_anew(at_s)
            case EventName.WORKER_JOINED:
                self.open[worker] = TimelineSpan(worker, self._free_lane(), self._now(at_s), self._now(at_s))
            case EventName.WORKER_LOST | EventName.WORKER_LEFT if worker in self.open:
                self._close(worker, self._now(at_s), kind.removeprefix("worker_"), str(event.get("reason", "")))
            case EventName.VIEW_FORMED if (stall_s := float(event.get("stall_s", 0.0))) > 0:
                stall = self._now(at_s) - stall_s, self._now(at_s)
                self.line = replace(self.line, stalls=(*self.line.stalls, stall))
            case EventName.PAUSED:
                self.paused_s = self._now(at_s)
            case EventName.UNPAUSED:
                self._unpause(self._now(at_s))
            case EventName.CHAOS_FIRED:
                lane = self.open[worker].lane if worker in self.open else -1
                fault = self._now(at_s), lane, str(event.get("fault", ""))
                self.line = replace(self.line, faults=(*self.line.faults, fault))
        self.ended = kind == EventName.ENDED or (self.ended and kind != EventName.WORKER_JOINED)
        self.line = replace(self.line, end_s=self._now(at_s))

    def _now(self, at_s: float) -> float:
        return at_s - self.left_out_s

    def _begin_anew(self, at_s: float) -> None:
        """Cut the time axis where the run was over, or its driver dead: there are no events of the time since."""
        stopped_s = self.line.end_s
        for worker in list(self.open):
            self._close(worker, stopped_s, "", "")
        self._unpause(stopped_s)
        self.left_out_s = at_s - stopped_s
        self.line = replace(self.line, cuts=(*self.line.cuts, stopped_s))

    def _close(self, worker: str, at_s: float, end: str, reason: str) -> None:
        span = replace(self.open.pop(worker), stop_s=at_s, end=end, reason=reason)
        self.line = replace(self.line, spans=(*self.line.spans, span))

    def _unpause(self, at_s: float) -> None:
        if self.paused_s is not None:
            self.line = replace(self.line, pauses=(*self.line.pauses, (self.paused_s, at_s)))
            self.paused_s = None

    def _free_lane(self) -> int:
        taken = {span.lane for span in self.open.values()}
        return next(lane for lane in range(len(taken) + 1) if lane not in taken)

    def finish(self) -> Timeline:
        for worker in list(self.open):
            self._close(worker, self.line.end_s, "", "")
        self._unpause(self.line.end_s)
        return self.line


def timeline(events: Sequence[Mapping[str, Any]]) -> Timeline:
    """Reconstruct the membership from the lines of `events.jsonl`.

    >>> line = timeline([
    ...     {"time_s": 5.0, "event": "worker_joined", "worker": "w0"},
    ...     {"time_s": 8.0, "event": "worker_lost", "worker": "w0", "reason": "died"},
    ... ])
    >>> line.spans
    (TimelineSpan(worker='w0', lane=0, start_s=0.0, stop_s=3.0, end='lost', reason='died'),)
    """
    reader = _Reader()
    timed = [event for event in events if "time_s" in event]
    for event in timed:
        reader.read(event, float(event["time_s"]) - float(timed[0]["time_s"]))
    return reader.finish()


def membership(events: Sequence[Mapping[str, Any]]) -> str:
    """Return the chart as SVG; empty if there never was a member."""
    line = timeline(events)
    if not line.spans:
        return ""
    lanes = min(line.lanes, _MOST_LANES)
    height = 0.9 + max(0.6, 0.3 * min(lanes, _MOST_NAMED))
    return svg(lambda axes: _draw(axes, line, lanes), height=height, width=12.6)


def _draw(axes: Axes, line: Timeline, lanes: int) -> None:
    for start_s, stop_s in line.pauses:
        axes.axvspan(start_s, stop_s, color=PAUSE, alpha=0.3, linewidth=0)
    for start_s, stop_s in line.stalls:
        axes.axvspan(start_s, stop_s, color=STALL, alpha=0.35, linewidth=0.8)
    for at_s in line.cuts:
        axes.axvline(at_s, color=PAUSE, linestyle=":")
    for span in (span for span in line.spans if span.lane < lanes):
        _draw_span(axes, span, line.end_s, named=lanes <= _MOST_NAMED)
    for at_s, lane, _ in line.faults:
        axes.plot(at_s, lane - 0.4 if lane >= 0 else -0.7, marker="v", color=FAULT, markersize=7, linestyle="")
    axes.set_ylim(lanes - 0.4, -0.9)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    label = "seconds by the clock" + (", without the time between two lives" if line.cuts else "")
    axes.set(xlabel=label + (f"; {lanes} of {line.lanes} workers" if lanes < line.lanes else ""))


def _draw_span(axes: Axes, span: TimelineSpan, end_s: float, named: bool) -> None:
    width = max(span.stop_s - span.start_s, 0.002 * end_s)
    axes.barh(span.lane, width, left=span.start_s, height=0.62, color=BAR, alpha=0.75)
    if span.end:
        marker, colour = ("X", LOST) if span.end == "lost" else (">", LEFT)
        axes.plot(span.stop_s, span.lane, marker=marker, color=colour, markersize=7, linestyle="")
    if named and width > 0.03 * end_s:
        place = (span.start_s + 0.005 * end_s, span.lane)
        axes.annotate(span.worker, place, color="#0b1220", ha="left", va="center", fontsize=9)
