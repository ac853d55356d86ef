"""One job at a time on one folder."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.samples import DataError


@contextmanager
def hold(folder: Path, lock: Path, job: str) -> Iterator[None]:
    """Hold `folder` through the file `lock`; the kernel lets go of it when this process ends, however it ends.

    Args:
        job: what the holder does there, for the message.

    Raises:
        DataError: another job holds it; names that job.
    """
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise DataError(
                f"{folder}: another {job} job is writing here ({file.read() or 'it has just begun'}); wait for it, or name another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
