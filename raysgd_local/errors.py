"""The errors that this package raises on purpose. All of them survive pickling; each has its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaySGDError(Exception):
    """Base class of the package's errors."""

    exit_status = 1  # of the command line


class InputError(RaySGDError, ValueError):
    """The user gave a value that can't be used.

    The message names the field by its path, the value, the allowed values, and a hint: after a typo the nearest
    valid name.

    >>> print(InputError("algorithm.schedule.tau0", 0, "an integer of at least 1"))
    algorithm.schedule.tau0: 0 is not allowed; allowed: an integer of at least 1
    """

    exit_status = 2

    def __init__(self, field: str, value: object, allowed: str, hint: str = "") -> None:
        super().__init__(field, value, allowed, hint)
        self.field, self.value, self.allowed, self.hint = field, value, allowed, hint

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.field}: {self.value!r} is not allowed; allowed: {self.allowed}{hint}"

    def under(self, parent: str) -> InputError:
        """Return the same error with `parent` put before the field: `tau0` becomes `algorithm.schedule.tau0`."""
        return InputError(f"{parent}.{self.field}", self.value, self.allowed, self.hint)


class UsageError(RaySGDError):
    """The user's loop calls the context in a way that can't work. The message names the remedy."""


class UserCodeError(RaySGDError):
    """User code raised an exception. Carries its traceback once, with all ranks that raised it."""

    def __init__(self, traceback: str, ranks: tuple[int, ...]) -> None:
        super().__init__(traceback, ranks)
        self.traceback, self.ranks = traceback, ranks

    def __str__(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        return f"user code failed on rank{'s' if len(self.ranks) > 1 else ''} {ranks}:\n{self.traceback}"


class RunLostError(RaySGDError):
    """The run can't continue: too few workers, no storage, a time-out, or no state to start from."""

    exit_status = 3


class TransportError(RaySGDError):
    """A collective did not complete: a peer died, a time-out expired, or the view was cut."""


class CheckpointError(RaySGDError):
    """A checkpoint is missing, damaged, or from another schema version."""

    exit_status = 2


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint that names the most similar of `names`, or an empty string if none is similar.

    >>> nearest("tua0", ["tau0", "interval_s"])
    "did you mean 'tau0'?"
    """
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
