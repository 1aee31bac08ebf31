"""Show progress: bars in a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysgd_local.clock import Clock, SystemClock
from raysgd_local.console import StandardError
from raysgd_local.quantities import duration

BAR_WIDTH = 40


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment, for display."""

    status: str = "starting"  # a word or two: `starting`, `running`, `paused`, …
    epoch: float = 0.0  # finished epochs, with a fraction for the open one
    epochs: int = 0  # epochs to train; 0 if that is not known
    round: int = 0  # newest resolved round; 0 before the first
    tau: int = 0  # its period
    workers: int = 0  # its members
    loss: float | None = None  # its mean training loss; None if not known
    samples: int = 0  # total training samples
    samples_per_s: float = 0.0
    compute_share: float = 0.0  # share of the workers' time in local steps, from 0 to 1
    sync_share: float = 0.0  # share in averaging
    wait_share: float = 0.0  # share in waiting for slower workers
    elapsed_s: float = 0.0  # training time
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the newest evaluation
    message: str = ""  # an important line, printed once
    output: tuple[str, ...] = ()  # the workers' new lines


ProgressCallback = Callable[[Snapshot], None]
"""A callback that gets every new snapshot of a run, several times a second."""


class Display:
    """Shows snapshots on standard error, so that standard output stays for results.

    What can't be shown, because the reader is gone or the disk is full, is not: the run goes on.

    >>> with Display() as display:
    ...     display.update(Snapshot(status="running", epoch=1, epochs=10))
    """

    def __init__(self, console: Console | None = None, clock: Clock | None = None, every_s: float = 5.0) -> None:
        self._console = console or Console(file=cast("IO[str]", StandardError()), highlight=False)
        self._clock = clock or SystemClock()
        self._every_s = every_s
        self._live: Live | None = None
        self._printed_at: float | None = None
        self._printed = self._newest = Snapshot()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(panel(self._newest), console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def update(self, snapshot: Snapshot) -> None:
        """Show this snapshot. Cheap enough to call several times a second."""
        for text in snapshot.output:
            self._console.print(Text(text), soft_wrap=True)
        if snapshot.message and snapshot.message != self._newest.message:
            self._console.print(Text(snapshot.message))
        self._newest = snapshot
        if self._live:
            self._live.update(panel(snapshot))
        elif self._is_due(snapshot):
            self._print_line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif line(self._newest) != line(self._printed):
            self._print_line()

    def _is_due(self, snapshot: Snapshot) -> bool:
        if self._printed_at is None or snapshot.status != self._printed.status:
            return True
        if line(snapshot) == line(self._printed):
            return False
        return self._clock.now() - self._printed_at >= self._every_s

    def _print_line(self) -> None:
        self._console.print(Text(line(self._newest)), soft_wrap=True)
        self._printed, self._printed_at = self._newest, self._clock.now()


def line(snapshot: Snapshot) -> str:
    """Format a snapshot as one line of plain text.

    >>> line(Snapshot("running", 1.5, 10, 42, 8, 4, 0.25, 6000, 3000, 0.9, 0.08, 0.02, 2.0, {"accuracy": 0.9}))
    'running 2.0s | epoch 1.5/10 | round 42 | loss 0.25 | tau 8 | 4 workers | 3,000 samples/s | \
compute 90% communication 8% waiting 2% | accuracy 0.9'
    """
    parts = [f"{snapshot.status} {duration(snapshot.elapsed_s)}"]
    if snapshot.round:
        parts += [_epoch(snapshot), f"round {snapshot.round}", f"loss {_loss(snapshot)}", f"tau {snapshot.tau}"]
        parts += [_workers(snapshot), f"{snapshot.samples_per_s:,.0f} samples/s"]
        parts.append(" ".join(f"{name} {share:.0%}" for name, _, share in _shares(snapshot)))
    elif snapshot.workers:
        parts.append(_workers(snapshot))
    return " | ".join(parts + ([_metrics(snapshot)] if snapshot.metrics else []))


def panel(snapshot: Snapshot) -> RenderableType:
    """Format a snapshot for a terminal: a bar of epochs, a bar of time shares, and the newest figures."""
    bars = Table.grid(padding=(0, 2))
    epochs = ProgressBar(total=max(snapshot.epochs, 1), completed=snapshot.epoch, width=BAR_WIDTH)
    bars.add_row(Text(snapshot.status, style="bold"), epochs, _epoch(snapshot), duration(snapshot.elapsed_s))
    if not snapshot.round:
        return bars
    legend = Text("  ").join(
        Text(f"{name} {share:.0%}", style=colour) for name, colour, share in _shares(snapshot)
    )
    bars.add_row(Text("time"), _share_bar(snapshot), legend)
    figures = [("loss", _loss(snapshot)), ("τ", str(snapshot.tau)), ("round", f"{snapshot.round:,}")]
    plain = [_workers(snapshot), f"{snapshot.samples_per_s:,.0f} samples/s", _metrics(snapshot)]
    shown = [Text.assemble((f"{name} ", "dim"), (text, "bold")) for name, text in figures]
    shown += [Text(text, style="bold") for text in plain if text]
    return Group(bars, Text("   ").join(shown))


def _share_bar(snapshot: Snapshot) -> Text:
    bar = Text()
    for _, colour, share in _shares(snapshot):
        bar.append("━" * round(share * BAR_WIDTH), style=colour)
    return bar


def _shares(snapshot: Snapshot) -> list[tuple[str, str, float]]:
    """Return name, colour and share of each part of the workers' time."""
    return [
        ("compute", "cyan", snapshot.compute_share),
        ("communication", "yellow", snapshot.sync_share),
        ("waiting", "magenta", snapshot.wait_share),
    ]


def _epoch(snapshot: Snapshot) -> str:
    return f"epoch {snapshot.epoch:.3g}" + (f"/{snapshot.epochs}" if snapshot.epochs else "")


def _loss(snapshot: Snapshot) -> str:
    return "–" if snapshot.loss is None else f"{snapshot.loss:.4g}"


def _workers(snapshot: Snapshot) -> str:
    return f"{snapshot.workers} worker{'' if snapshot.workers == 1 else 's'}"


def _metrics(snapshot: Snapshot) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in snapshot.metrics.items())
