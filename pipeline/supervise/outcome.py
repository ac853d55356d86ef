"""How a job ended, from what its ranks left behind. Pure: records in, a verdict out.

A launcher's own exit status is not asked where anything better is known: DeepSpeed's is 0 after its launch.py was killed.
"""

import signal
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from pipeline.heartbeat import Record


class Status(IntEnum):
    """Exit statuses of the supervisor; a rank has the same, but for LOST."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    PREEMPTED = 4
    LOST = 5
    UNSAVED = 6


MEANING = {
    Status.DONE: "done: result.json is this job's, written after the last barrier",
    Status.FAILED: "a rank raised an exception, or the launcher failed before any rank began",
    Status.BAD_INPUT: "bad input; nothing was trained. Mend it before you start again",
    Status.REFUSED: "stopped: too many steps in a row were refused",
    Status.PREEMPTED: "asked to stop, and saved; --resume goes on",
    Status.LOST: "a rank was lost (killed, or its machine), or no rank advanced any more",
    Status.UNSAVED: "a checkpoint could not be written; the ones before are untouched. Make room before you start again",
}
"""What each status says. 128 + n: ended by signal n before a checkpoint was saved."""
TRY_AGAIN = {Status.FAILED, Status.LOST}
"""What another start may mend."""


class Verdict(NamedTuple):
    """An exit status, and why."""

    status: int
    reason: str


def judge(records: Sequence[Record], result: dict | None, asked: int | None, launcher: int | None) -> Verdict:
    """The verdict on a job whose processes have all ended.

    Args:
        records: what the ranks last reported.
        result: result.json, where this job wrote it.
        asked: the signal by which the supervisor was asked to stop.
        launcher: the launcher's exit status.
    """
    if result is not None:
        return Verdict(result["status"], MEANING.get(result["status"], ""))
    said = {record.ended for record in records}
    for status in (Status.BAD_INPUT, Status.REFUSED, Status.PREEMPTED, Status.UNSAVED):
        if status in said:
            return Verdict(status, MEANING[status])
    if asked is not None:
        return Verdict(128 + asked, f"ended by {signal.Signals(asked).name} before a checkpoint was saved")
    if failed := [record for record in records if record.ended]:
        return Verdict(Status.FAILED, f"failed: {', '.join(map(str, failed))}")
    if not records:
        return Verdict(Status.FAILED, f"the launcher ended with {launcher} before any rank had begun")
    if lost := [record for record in records if record.ended is None]:
        return Verdict(Status.LOST, f"lost: {', '.join(map(str, lost))}")
    return Verdict(Status.LOST, "every rank ended, but none wrote result.json for this job")


def hanging(records: Sequence[Record], silent: set[int], stopped: set[int], minutes: float) -> str:
    """Names the ranks that hang, as far as that can be told.

    Args:
        records: what the ranks last reported; nothing has changed for `minutes`.
        silent: ranks that no longer give signs of life.
        stopped: ranks of this machine that the kernel holds stopped.
    """
    told = f"no rank has advanced for {minutes:g} minutes"
    if not records:
        return f"{told}, and none has ever reported"
    least = min(record.beats for record in records)
    behind = {record.rank for record in records if record.beats == least}
    if len(behind) == len(records):
        behind = set()
    suspects = stopped or silent or behind
    lines = []
    for record in records:
        signs = {"stopped": stopped, "gives no sign of life": silent, "is behind": behind}
        found = [sign for sign, ranks in signs.items() if record.rank in ranks]
        lines.append(f"  {record}: {', '.join(found) or 'waits'}")
    names = ", ".join(f"rank {rank}" for rank in sorted(suspects))
    cause = f"{names} hangs" if suspects else "all are at the same place and alive; each may be waiting for the others"
    return f"{told}: {cause}\n" + "\n".join(lines)
