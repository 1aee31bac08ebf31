"""The C library's memory allocator, told to keep what a training step gives back: the next step wants it again."""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt, and bytes for each. Blocks above the first would be mapped one by one (it allows no
# more); free memory above the second would go back to the system, and so would heaps of a thread, which have 64 MB,
# unless the third is as large.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = (-3, 32 << 20), (-1, 1 << 30), (-2, 64 << 20)


def keep_freed_memory() -> None:
    """Reuse memory between steps instead of returning it to the system and faulting it in again, page by page.

    Gradients and activations are freed at every step. By its defaults glibc gives some of them back, depending on
    where they happen to lie: a step of a small model can then take half as long again, on one worker for which all
    others wait. Memory grows no further than a step's peak. Does nothing on systems without glibc, or where the
    user has tuned the allocator.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    for parameter, nbytes in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD):
        mallopt(parameter, nbytes)
