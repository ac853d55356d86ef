"""What a disk that refuses a write is told as; everything else passes through."""

import errno
from pathlib import Path

import pytest

from data_prep.disk import disk_errors
from data_prep.samples import DataError

FULL = "out: found a disk that takes no more ({}); expected room for all files. Nothing half-written counts, and "
READ_ONLY = "out: found a disk that takes nothing (Read-only file system); expected one that can be written to."


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, FULL.format("No space left on device")),
        (errno.EDQUOT, FULL.format("Disk quota exceeded")),
        (errno.EFBIG, FULL.format("File too large")),
        (errno.EROFS, READ_ONLY),
    ],
)
def test_a_refusal_says_what_to_do(number: int, message: str) -> None:
    with pytest.raises(DataError) as caught, disk_errors(Path("out")):
        raise OSError(number, "no")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(", then start the same command again")


def test_other_errors_pass_through() -> None:
    with pytest.raises(FileNotFoundError), disk_errors(Path("out")):
        raise FileNotFoundError(errno.ENOENT, "no")
