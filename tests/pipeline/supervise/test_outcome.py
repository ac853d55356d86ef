"""How a job ended, from records."""

import pytest

from pipeline.heartbeat import Record
from pipeline.supervise.outcome import MEANING, Status, hanging, judge


def rank(number: int, ended: int | None = None, beats: int = 9, step: int | None = 4) -> Record:
    return Record(number, f"node-{number}", "m", 100 + number, 1, "step", step, beats, 1, ended)


def test_the_table():
    assert {status.name: int(status) for status in MEANING} == {
        "DONE": 0, "FAILED": 1, "BAD_INPUT": 2, "REFUSED": 3, "PREEMPTED": 4, "LOST": 5, "UNSAVED": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "result", "asked", "launcher", "status"),
    [
        ([0, 0], {"status": 0}, None, 0, 0),
        ([0, None], {"status": 0}, None, 0, 0),  # a rank was lost after the last barrier: the work is done
        ([3, 3], {"status": 3}, None, 3, 3),
        ([0, 0], None, None, 0, 5),
        ([None, None], None, None, 0, 5),  # DeepSpeed says 0 after its launch.py was killed
        ([1, None], None, None, 1, 1),
        ([2, 2], None, None, 2, 2),
        ([2, None], None, None, 2, 2),
        ([4, 4], None, 15, 4, 4),
        ([4, None], None, None, 4, 4),
        ([None, None], None, 15, 143, 143),
        ([130, 130], None, 2, 1, 130),
        ([], None, None, 1, 1),
        ([], None, 15, 143, 143),
    ],
)
def test_verdicts(ended, result, asked, launcher, status):
    verdict = judge([rank(number, end) for number, end in enumerate(ended)], result, asked, launcher)
    assert verdict.status == status and verdict.reason


def test_lost_ranks_are_named():
    verdict = judge([rank(0, 0), rank(1)], None, None, 0)
    assert verdict == (Status.LOST, "lost: rank 1 (node-1, process 101; step, step 4)")


def test_a_stopped_rank_hangs():
    text = hanging([rank(0), rank(1), rank(2, beats=8)], silent={1}, stopped={1}, minutes=5)
    assert text.splitlines() == [
        "no rank has advanced for 5 minutes: rank 1 hangs",
        "  rank 0 (node-0, process 100; step, step 4): waits",
        "  rank 1 (node-1, process 101; step, step 4): stopped, gives no sign of life",
        "  rank 2 (node-2, process 102; step, step 4): is behind",
    ]


def test_a_silent_machine_and_a_rank_behind():
    ranks = [rank(0), rank(1, beats=8, step=3), rank(2)]
    assert "rank 2 hangs" in hanging(ranks, silent={2}, stopped=set(), minutes=5)
    assert "rank 1 hangs" in hanging(ranks, silent=set(), stopped=set(), minutes=5)


def test_a_deadlock_accuses_nobody():
    assert "each may be waiting for the others" in hanging([rank(0), rank(1)], set(), set(), 5)
    assert hanging([], set(), set(), 5) == "no rank has advanced for 5 minutes, and none has ever reported"
