"""The errors that this package raises on purpose. All of them survive pickling; each has its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 300  # characters of each part of a message
_LONGEST_NAME = (
    100  # characters of a name that is compared with others: this takes time in proportion to the square
)


class RaySGDError(Exception):
    """Base class of the package's errors."""

    exit_status = 1  # of the command line


class InputError(RaySGDError, ValueError):
    """The user gave a value that can't be used.

    The message names the field by its path, the value, the allowed values, and a hint: after a typo the nearest
    valid name. Long parts are cut.

    >>> print(InputError("algorithm.schedule.tau0", 0, "an integer of at least 1"))
    algorithm.schedule.tau0: 0 is not allowed; allowed: an integer of at least 1
    """

    exit_status = 2

    def __init__(self, field: str, value: object, allowed: str, hint: str = "") -> None:
        super().__init__(field, value, allowed, hint)
        self.field, self.value, self.allowed, self.hint = field, value, allowed, hint

    def __str__(self) -> str:
        hint = f" ({cut(self.hint, 3 * _LONGEST)})" if self.hint else ""
        field, allowed = cut(self.field), cut(self.allowed, 3 * _LONGEST)
        return f"{field}: {shown(self.value)} is not allowed; allowed: {allowed}{hint}"

    def under(self, parent: str) -> InputError:
        """Return the same error with `parent` put before the field: `tau0` becomes `algorithm.schedule.tau0`."""
        return InputError(f"{parent}.{self.field}", self.value, self.allowed, self.hint)


class ShardError(InputError):
    """A shard of the training data is missing, cut off or damaged. Rows before number `row` are good.

    >>> print(ShardError("part-3.gz", 17, "the file ended too soon"))
    data: shard 'part-3.gz' can't be read at row 17: the file ended too soon
    """

    def __init__(self, shard: str, row: int, why: str) -> None:
        super().__init__("data", shard, "shards that can be read to their end", why)
        self.shard, self.row, self.why = shard, row, why

    def __reduce__(self) -> tuple[type[ShardError], tuple[str, int, str]]:
        return type(self), (self.shard, self.row, self.why)

    def __str__(self) -> str:
        return f"{self.field}: shard {shown(self.shard)} can't be read at row {self.row}: {cut(self.why)}"


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


def shown(value: object) -> str:
    """Return the value for a message: one line, not long, whatever it is.

    >>> shown("a"), shown(10**5000), shown([1] * 1000)[-20:]
    ("'a'", 'a value of type int', '… (3,000 characters)')
    """
    try:
        return cut(repr(value))
    except Exception:  # an integer of thousands of digits, nested too deep, or a class of the user's that fails
        return f"a value of type {type(value).__name__}"


def cut(text: str, longest: int = _LONGEST) -> str:
    r"""Return the text on one line, cut if it is longer than `longest`.

    >>> cut("a\tb"), cut("a" * 10, longest=3)
    ('a b', 'aaa… (10 characters)')
    """
    line = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= longest else f"{line[:longest]}… ({len(line):,} characters)"


def nearest(name: object, names: Iterable[str]) -> str:
    """Return a hint that names the most similar one of the other `names`, or an empty string if none is similar.

    >>> nearest("tua0", ["tau0", "interval_s"]), nearest("tau0", ["tau0"])
    ("did you mean 'tau0'?", '')
    """
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        return ""
    found = difflib.get_close_matches(name, [other for other in names if other != name], n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
