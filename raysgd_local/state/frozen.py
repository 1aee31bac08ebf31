"""Parameters that don't train (`requires_grad=False`): never averaged nor sent, and checked to be equal on members."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from raysgd_local.errors import InputError, UsageError

_ROW = 512  # 64-bit words; a digest hashes the sum of each row, which is much faster than hashing all bytes

_REMEDY = (
    "only parameters that trained when the first ctx.epochs began are averaged. To train it later, leave "
    "requires_grad=True from the beginning and give its parameter group lr=0 until then; or end this run and start "
    "another one from its model.pt"
)


class FrozenParameters:
    """The frozen parameters by name, with a digest of each, computed once a view.

    `remember` takes their present values as the right ones. Members compare `digest` in every round.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = dict(parameters)
        self._digests: dict[str, int] = {}
        self._marks: dict[str, tuple[int, int]] = {}
        self.digest = 0  # of all of them, 48 bit
        self.remember()

    def __len__(self) -> int:
        return len(self._parameters)

    def remember(self) -> None:
        """Take the present values as the right ones: they were just received, or restored."""
        self._digests = {name: digest(tensor) for name, tensor in self._parameters.items()}
        self._marks = {name: _mark(tensor) for name, tensor in self._parameters.items()}
        content = repr(sorted(self._digests.items())).encode()
        self.digest = int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "little")

    def check(self, *, thorough: bool = False) -> None:
        """Raise `UsageError` for a parameter that trains by now, or whose value the loop changed.

        A change is looked for where autograd's version counter or the memory's address says so; `thorough` reads all.
        """
        for name, tensor in self._parameters.items():
            if tensor.requires_grad:
                raise UsageError(f"{name} was frozen when training began, and trains now: {_REMEDY}")
            if thorough or _mark(tensor) != self._marks[name]:
                self._check_value(name, tensor)

    def _check_value(self, name: str, tensor: Tensor) -> None:
        if digest(tensor) != self._digests[name]:
            raise UsageError(
                f"{name} has requires_grad=False, but the loop changed it, and frozen parameters are not averaged. "
                f"If it follows others (a teacher, a target network), have it averaged: "
                f'ctx.prepare_model(model, buffers={{"{name}": "mean"}}), or a pattern such as "teacher.*weight"; '
                f'with "keep" each worker has its own'
            )
        self._marks[name] = _mark(tensor)

    def check_equal(self, highest: int, lowest: int) -> None:
        """Raise `InputError`, on all members alike, if the members' digests differ."""
        if highest != lowest:
            names = list(self._parameters)
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            hint = "build the model alike on every worker, for example from the same file"
            raise InputError("frozen parameters", some, "values that are equal on all workers", hint)


def digest(tensor: Tensor) -> int:
    """Return a 48-bit digest of the tensor's content, in one pass at memory speed."""
    content = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if content.storage_offset() % 8:
        content = content.clone()
    whole = content.numel() // (8 * _ROW) * 8 * _ROW
    rows = content[:whole].view(torch.int64).view(-1, _ROW).sum(1)
    hashed = hashlib.blake2b(digest_size=6)
    for part in (rows.view(torch.uint8), content[whole:]):
        hashed.update(part.cpu().numpy().tobytes())
    return int.from_bytes(hashed.digest(), "little")


def _mark(tensor: Tensor) -> tuple[int, int]:
    return tensor._version, tensor.data_ptr()
