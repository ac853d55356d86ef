import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
FREED = """
import ctypes, sys
from pipeline.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 24 * 2**20
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
block = libc.malloc(size)
ctypes.memset(block, 1, size)
libc.free(block)
print((resident() - before) / size > 0.5)
"""


@pytest.mark.skipif(not GLIBC, reason="another C library has no such settings")
@pytest.mark.parametrize(("mode", "stays"), [("plain", "False"), ("kept", "True")])
def test_a_freed_block_stays_with_the_process_only_when_kept(mode: str, stays: str) -> None:
    """A block of 24 MiB goes back to the kernel by default, and is still resident after `keep_freed_memory`."""
    done = subprocess.run([sys.executable, "-c", FREED, mode], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == stays
