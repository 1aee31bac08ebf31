"""Every error this package raises on purpose. All survive pickling; each knows its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaySGDError(Exception):
    """Base of the package's errors. `exit_status` is what the command line ends with."""

    exit_status = 1


class InputError(RaySGDError, ValueError):
    """A value the user gave can't be used.

    Says the field's path, the value, what is allowed, and the nearest valid name where there was a typo.

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
        """The same error seen from an enclosing configuration: `tau0` under `algorithm.schedule`."""
        return InputError(f"{parent}.{self.field}", self.value, self.allowed, self.hint)


class UsageError(RaySGDError):
    """The user's loop calls the context in a way that can't work; the message names the remedy."""


class UserCodeError(RaySGDError):
    """User code raised. Carries that code's own traceback, once, with the ranks that had it."""

    def __init__(self, traceback: str, ranks: tuple[int, ...]) -> None:
        super().__init__(traceback, ranks)
        self.traceback, self.ranks = traceback, ranks

    def __str__(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        return f"user code failed on rank{'s' if len(self.ranks) > 1 else ''} {ranks}:\n{self.traceback}"


class RunLostError(RaySGDError):
    """The run can't go on: too few workers, no storage, no time left, no state to start from."""

    exit_status = 3


class TransportError(RaySGDError):
    """A collective did not complete: a peer died, a time-out passed, or the view was cut."""


class CheckpointError(RaySGDError):
    """A checkpoint is missing, damaged, or from another schema version."""

    exit_status = 2


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a typo, or an empty string.

    >>> nearest("tua0", ["tau0", "interval_s"])
    "did you mean 'tau0'?"
    """
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
