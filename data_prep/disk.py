"""A disk that takes no more, said in plain words."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.samples import DataError

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""No space, no quota, file size limit, read-only: what only writing meets, so that an unreadable source is never mistaken for it."""

FULL = ("takes no more", "room for all files", "make room")
READ_ONLY = ("takes nothing", "one that can be written to", "mount it for writing or name another --out")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Around whatever writes into `folder`.

    Raises:
        DataError: the disk refused a write; other errors pass through.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        found, expected, mend = READ_ONLY if error.errno == errno.EROFS else FULL
        raise DataError(
            f"{folder}: found a disk that {found} ({os.strerror(error.errno)}); expected {expected}. Nothing half-written "
            f"counts, and finished files are kept: {mend}, then start the same command again"
        ) from error
