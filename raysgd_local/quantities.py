"""Format durations and sizes for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format seconds, rounded to 0.1 s below 10 s, to seconds below an hour, and to minutes above.

    >>> duration(9.7), duration(75), duration(3700)
    ('9.7s', '1m15s', '1h01m')
    """
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02}m"


def size(count: float) -> str:
    """Format a number of bytes with three significant digits and a decimal unit.

    >>> size(1_500_000), size(12)
    ('1.5 MB', '12 B')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
