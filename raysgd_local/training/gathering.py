"""Gather the outputs of all members' slices, for metrics that are no means over samples, such as F1 or AUC."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from raysgd_local.errors import UsageError
from raysgd_local.training.exchange.alike import gather_bytes
from raysgd_local.training.metric_names import checked
from raysgd_local.transport.contract import Transport

Gather = Callable[[Any], Any]
"""Of all samples' outputs, a tensor or a dict of tensors: a metric, or a dict of metrics."""

_ALONE = "\0"  # key of outputs that are one tensor: a name that no metric may have


def gathered_metrics(
    transport: Transport, gather: Gather, batches: Iterable[tuple[Any, int]]
) -> Callable[[], dict[str, float]]:
    """Collect this member's outputs now, and return a function that computes the metrics with all members.

    `batches` are pairs of a batch's outputs and its number of samples. Raises `UsageError` for outputs that don't have
    a row for each sample, and for metrics that are no numbers.
    """
    own = _joined([_outputs(outputs, samples) for outputs, samples in batches])

    def together() -> dict[str, float]:
        rows = [_read(content) for content in gather_bytes(transport, _written(own))]
        outputs = _joined([row for row in rows if row])
        found = gather(outputs[_ALONE] if set(outputs) == {_ALONE} else outputs)
        told = gather_bytes(transport, json.dumps(_numbers(gather, found)).encode())
        return dict(json.loads(told[0]))  # rank 0's, so that all have the same, to the bit

    return together


def _outputs(found: Any, samples: int) -> dict[str, Tensor]:
    """Return a batch's outputs by name, on the CPU."""
    named = found if isinstance(found, Mapping) else {_ALONE: found}
    outputs = {str(name): torch.as_tensor(value).detach().cpu() for name, value in named.items()}
    for name, value in outputs.items():
        if value.ndim == 0 or len(value) != samples:
            told = "it" if name == _ALONE else repr(name)
            raise UsageError(
                f"with gather, metrics(model, batch) returns a row for each of the batch's {samples} samples; "
                f"{told} has the shape {tuple(value.shape)}"
            )
    return outputs


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the outputs, in the data set's order. Raises `UsageError` if their names or shapes differ."""
    names = {tuple(sorted(part)) for part in parts}
    if len(names) > 1:
        raise UsageError(f"with gather, all batches have outputs of the same names, not {sorted(names)}")
    try:
        return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}
    except RuntimeError as error:
        raise UsageError(f"with gather, all samples have outputs of one shape: {error}") from error


def _numbers(gather: Gather, found: Any) -> dict[str, float]:
    named = found if isinstance(found, Mapping) else {getattr(gather, "__name__", "metric"): found}
    try:
        return {checked(name): float(value) for name, value in named.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"gather returns a number, or a dict of numbers: {error}") from error


def _written(outputs: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(outputs, buffer)
    return buffer.getvalue()


def _read(content: bytes) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return outputs
