"""At a boundary, where the training set is a stream: its ledger, its deals, and lengths that only the dead knew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raysgd_local.control.controller.settings import Settings
from raysgd_local.control.data.ledger import Ledger
from raysgd_local.control.data.streams.deal import StreamDeal, known_lengths
from raysgd_local.control.data.streams.ledger import StreamLedger
from raysgd_local.control.data.streams.lengths import UNKNOWN, Lengths, merged, with_lengths
from raysgd_local.control.data.streams.lines import unknown_needed
from raysgd_local.control.data.streams.parts import taken_by_epoch
from raysgd_local.control.data.streams.ranges import ROWS, Ranges
from raysgd_local.control.data.streams.shards import Shards
from raysgd_local.control.messages import Report, View
from raysgd_local.control.replicated.state import Replicated


def opened(ledger: Ledger | StreamLedger, epoch: int, shards: Shards) -> StreamLedger:
    """Return the ledger with `epoch` of this source open. A ledger of another source passes its counts on."""
    known = {shard: length for shard, length in enumerate(shards.known_lengths().tolist()) if length >= 0}
    same = isinstance(ledger, StreamLedger) and ledger.names == shards.names and not changed(ledger, known)
    if not isinstance(ledger, StreamLedger) or not same:
        ledger = StreamLedger.of_shards(shards, ledger)
    return ledger.learn(known).open_epoch(epoch)


def changed(ledger: StreamLedger, lengths: Mapping[int, int]) -> str:
    """Say which shard has another length than before; empty if none has. A shard must stay the same during a run."""
    known = ledger.known_lengths()
    for shard, length in lengths.items():
        if length >= 0 and known[shard] not in (UNKNOWN, length):
            return f"shard number {shard} has {length} rows now, and had {known[shard]}: it was changed during the run"
    return ""


def map_style(ledger: Ledger | StreamLedger) -> Ledger:
    """Return the ledger for a map-style set. A stream's passes its counts on."""
    if isinstance(ledger, Ledger):
        return ledger
    return Ledger(deals=ledger.deals, samples_lost=ledger.rows_lost, samples_repeated=ledger.rows_repeated)


def told(deal: StreamDeal, found: Lengths, reports: Sequence[Report]) -> Lengths:
    """Return what is known of shards' lengths beside the ledger, after these reports on the deal's source."""
    own = (report.found for report in reports if report.source == deal.names)
    said = (dict(lengths) for lengths in (found, *own))
    return tuple(sorted(merged(*said).items()))


def unfair(ledger: StreamLedger, workers: int) -> dict[int, int]:
    """Return the shards of unknown length that must be measured before the open epoch can be dealt to so many workers.

    There are fewer shards than workers, so some must be split (see `lines.unknown_needed`).
    """
    if ledger.epoch is None:
        return {}
    return dict.fromkeys(unknown_needed(ledger.deal(ledger.epoch, 0, (1.0,) * workers)), ROWS)


def pending_rows(
    deal: StreamDeal,
    ledger: Ledger | StreamLedger,
    found: Lengths,
    view: View,
    state: Replicated,
    reports: Mapping[str, Report],
    behind: Sequence[str],
) -> dict[str, dict[int, Ranges]]:
    """Return by worker and epoch the rows of its uncommitted steps. A healed worker drops its steps, so has none."""
    known = ledger.known_lengths() if isinstance(ledger, StreamLedger) else known_lengths(deal)
    lengths = with_lengths(known, dict(found))
    rows: dict[str, dict[int, Ranges]] = {}
    for worker, report in reports.items():
        if report.taken and worker not in behind and worker in view.members:
            rank = view.rank(worker)
            cursor = state.cursors[rank]
            rows[worker] = taken_by_epoch(deal, rank, cursor, cursor + report.taken, lengths)
    return rows


def split(state: Replicated, before: View, after: View, reports: Mapping[str, Report]) -> int:
    """Return the number of rows that are split by a new deal: all readers begin anew.

    A reader that stays has come as far as its steps, committed or not; of one that goes, committed steps count.
    """
    committed = dict(zip(before.members, state.splits, strict=False))
    stay = {worker: report.split for worker, report in reports.items() if worker in after.members}
    return sum({**committed, **stay}.values())


def dealt(
    ledger: StreamLedger,
    shares: Sequence[float],
    pending: Sequence[Mapping[int, Ranges]],
    settings: Settings,
    epochs: int,
    left: tuple[int, ...],
) -> tuple[StreamLedger, StreamDeal]:
    """Deal the rest of the open epoch, and the later ones if rounds go across. Return the ledger that counts the deal.

    `pending`: for each rank by epoch the rows of uncommitted steps. `epochs`: of the run, if rounds go across them.
    `left`: for each rank the first epoch of which it takes new rows.
    """
    epoch = 0 if ledger.epoch is None else ledger.epoch
    last = max((own for rows in pending for own in rows), default=epoch)
    first, *later = [[rows.get(own, Ranges()) for rows in pending] for own in range(epoch, last + 1)]
    deal = ledger.deal(
        epoch,
        settings.seed,
        tuple(shares),
        first,
        settings.interleave,
        settings.shuffle_window,
        epochs=epochs,
        left=left,
        later_pending=later,
    )
    return ledger.dealt(), deal
