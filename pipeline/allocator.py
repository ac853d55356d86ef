"""Tell glibc to keep the memory of freed tensors.

By default it hands large blocks back to the kernel and faults them in again at every step: over a quarter of a CPU rank's time,
measured. The first of the two settings alone makes it worse.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the two settings in malloc.h (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD)."""
KEPT_BYTES = 2**30
LARGEST_BYTES = 2**25
"""The largest block glibc will take from its own heap rather than map afresh; 32 MiB is as much as it allows."""


def keep_freed_memory() -> bool:
    """Set both thresholds for this process; returns whether the C library took them (only glibc does)."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(TRIM_THRESHOLD, KEPT_BYTES), mallopt(MMAP_THRESHOLD, LARGEST_BYTES)])
