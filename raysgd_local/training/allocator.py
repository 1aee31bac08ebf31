"""Configure the C library's memory allocator to keep freed memory, because the next training step needs it again."""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt, with bytes for each. glibc maps blocks above the first one by one (it allows no higher
# value), and returns free memory above the second to the system. It returns a thread's heap of 64 MB, too, unless the
# third is as large.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = (-3, 32 << 20), (-1, 1 << 30), (-2, 64 << 20)


def keep_freed_memory() -> None:
    """Reuse memory between steps instead of returning it to the system and faulting it in again, page by page.

    Gradients and activations are freed at every step. By default glibc returns some of them, depending on where they
    happen to lie: a step of a small model can then take half as long again, on one worker for which all others wait.
    Memory grows no further than a step's peak. Does nothing on systems without glibc, or if the user has tuned the
    allocator.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    for parameter, nbytes in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD):
        mallopt(parameter, nbytes)
