"""Where a job writes: a path that means the same in every one of its processes."""

import os
from pathlib import Path

from data_prep.samples import DataError


def absolute_out(out: Path) -> Path:
    """`out` for the driver and for workers that stand in other folders.

    Raises:
        DataError: a relative `out` in a submitted job, whose working folder is a copy that Ray deletes.
    """
    if os.environ.get("RAY_ADDRESS") and not out.is_absolute():
        raise DataError(
            f"--out {out}: found a relative path on a Ray cluster, where it names a temporary copy of the working folder; "
            "expected an absolute path on storage that every node sees"
        )
    return out.absolute()
