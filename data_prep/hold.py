"""One job per output: a lock that the kernel drops when its process ends, however it ends."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.samples import DataError


@contextmanager
def hold(lock: Path, job: str, out: Path) -> Iterator[None]:
    """Hold `lock`, a file that is made where it is missing, for the job that writes `out`.

    Raises:
        DataError: another job holds it; names that job.
    """
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise DataError(
                f"{out}: another {job} job is writing here ({file.read() or 'it has just begun'}); wait for it, or name another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield
