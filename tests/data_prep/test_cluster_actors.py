"""Actors that open something costly once: every item once, in any order; a dead one is replaced, and its item done again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.cluster import actors_as_finished, cluster
from data_prep.samples import DataError


class Opener:
    """Says which process did an item, and how many it has done since it opened; dies on the items it is told to, once each."""

    def __init__(self, folder: Path, deadly: tuple[int, ...]):
        self.folder, self.deadly, self.done = folder, deadly, 0

    def work(self, item: int) -> tuple[int, int]:
        mark = self.folder / f"died-{item}"
        if item in self.deadly and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item < 0:
            raise DataError(f"found {item}, expected a number from 0 on")
        self.done += 1
        return os.getpid(), self.done


@pytest.fixture(scope="module", autouse=True)
def ray_of_two() -> Iterator[None]:
    with cluster(2):
        yield


def test_every_item_once_and_each_actor_opens_once(tmp_path: Path) -> None:
    found = dict(actors_as_finished(Opener, list(range(20)), (tmp_path, ()), 2))
    assert sorted(found) == list(range(20))
    by_process: dict[int, list[int]] = {}
    for process, count in found.values():
        by_process.setdefault(process, []).append(count)
    assert 1 <= len(by_process) <= 2 and os.getpid() not in by_process
    assert all(sorted(counts) == list(range(1, len(counts) + 1)) for counts in by_process.values())


def test_a_dead_actor_is_replaced(tmp_path: Path) -> None:
    found = dict(actors_as_finished(Opener, list(range(8)), (tmp_path, (2, 5)), 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["died-2", "died-5"]
    assert sorted(found) == list(range(8))
    assert len({process for process, _ in found.values()}) >= 2


def test_bad_input_is_told_as_it_was_raised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^found -1, expected a number from 0 on$"):
        list(actors_as_finished(Opener, [0, -1], (tmp_path, ()), 1))
