"""Choose how `ctx.batches` reads: the rows of a stream, or the samples of a map-style set."""

from __future__ import annotations

from typing import Any

from raysgd_local.algorithms.placement import DisjointChunks
from raysgd_local.errors import InputError
from raysgd_local.sources.choice import as_source
from raysgd_local.sources.skipping import SkippingBad
from raysgd_local.sources.transform import checked
from raysgd_local.training.shell import Shell
from raysgd_local.training.streams.loading import StreamedBatches


def streamed(
    dataset: Any, batch_size: int, transform: Any, on_bad_shard: Any, options: dict[str, Any], shell: Shell
) -> StreamedBatches | None:
    """Return the batches of a stream; None for a map-style set. Raises `InputError` for what can't be read."""
    if on_bad_shard not in ("fail", "skip"):
        raise InputError("on_bad_shard", on_bad_shard, "fail or skip")
    source = as_source(dataset)
    if source is None:
        _check_map_style(transform, on_bad_shard)
        return None
    place = shell.place
    if place.restricted:
        raise InputError("data.access", "local", "shared, if the training set is a stream")
    if not isinstance(place.algorithm.placement, DisjointChunks):
        hint = "a stream has shards, which are dealt to one worker each"
        raise InputError("algorithm.placement", type(place.algorithm.placement).__name__, "DisjointChunks", hint)
    if on_bad_shard == "skip":
        source = SkippingBad(source)
    return StreamedBatches(source, batch_size, checked(transform), options, known=shell.stream)


def _check_map_style(transform: Any, on_bad_shard: str) -> None:
    hint = "it is for streams: a map-style data set transforms its samples itself"
    if transform is not None:
        raise InputError("transform", "given", "None for a map-style data set", hint)
    if on_bad_shard != "fail":
        raise InputError("on_bad_shard", on_bad_shard, "fail for a map-style data set", hint)
