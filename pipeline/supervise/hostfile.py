"""Hostfiles: `name slots=8`, a line for each machine, `#` before a remark.

DeepSpeed trains on one machine, with a warning, where it finds no hostfile, and reads over what stands behind the number of slots.
"""

import re
from pathlib import Path

from data_prep.samples import DataError

LINE = re.compile(r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.@:-]*)\s+slots=(?P<slots>\d+)")


def read(path: Path) -> dict[str, int]:
    """Machines in the order of their ranks, with the number of ranks of each.

    Raises:
        DataError: no such file, a line that does not fit, a machine named twice, no slots, or no machine at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"hostfile {path}: found no readable file ({error}); nothing was started (DeepSpeed would have trained on this machine alone). "
            "Write one with a line `name slots=8` for each machine, or leave --hostfile out to train here"
        ) from error
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where, found = f"hostfile {path}, line {number}", LINE.fullmatch(line)
        if found is None:
            raise DataError(f"{where}: found {line!r}, expected `name slots=8`; nothing was started. Mend the line, or put # before it")
        host, slots = found["host"], int(found["slots"])
        if host in hosts:
            raise DataError(f"{where}: found {host} again, expected every machine once; nothing was started. Join its lines into one")
        if slots == 0:
            raise DataError(f"{where}: found slots=0, expected a rank or more; nothing was started. Put # before the line to leave it out")
        hosts[host] = slots
    if not hosts:
        raise DataError(f"hostfile {path}: found no machine, expected a line `name slots=8` for each; nothing was started")
    return hosts
