"""Kept results come back whole or not at all."""

import random
import resource

import pytest

from data_prep.samples import DataError
from pipeline.evaluate.kept import Kept, kept_in

KEY, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def kept(tmp_path) -> Kept:
    kept = Kept(tmp_path / "cache")
    kept.put(KEY, b"line\nresult\n")
    kept.put(OTHER, b"")
    return kept


def test_results_come_back(kept) -> None:
    assert kept.get(KEY) == b"line\nresult\n" and kept.get(OTHER) == b""
    assert Kept(kept.folder).holds(KEY) and not kept.holds("ef" * 32)
    with pytest.raises(DataError, match="found no whole result"):
        kept.get("ef" * 32)


def test_every_damage_is_found_and_said(kept, capsys) -> None:
    """Each bit turned round, each length cut, another unit's file under this name: never read, taken away."""
    path = kept.folder / "ab" / KEY
    whole = path.read_bytes()
    rng = random.Random(0)
    flips = [bytes([*whole[:i], whole[i] ^ 1 << rng.randrange(8), *whole[i + 1 :]]) for i in range(len(whole))]
    others = [whole[:i] for i in range(len(whole))] + [whole + b"\0", (kept.folder / "cd" / OTHER).read_bytes()]
    for damaged in flips + others:
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="found no whole result"):
            kept.get(KEY)
        assert not kept.holds(KEY) and not path.exists()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(flips + others) == 2 * len(whole) + 2
    assert said[0] == f"{path}: found a damaged result, expected one of its digest; it is made again"
    kept.put(KEY, b"again")
    assert kept.get(KEY) == b"again"


def test_a_full_disk_is_said_and_leaves_nothing_half_written(kept) -> None:
    """The kernel refuses the file when it grows past its limit, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DataError, match="found a disk that takes no more"):
            kept.put("ef" * 32, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not kept.holds("ef" * 32) and sorted(path.name for path in kept.folder.glob("*/*")) == [KEY, OTHER]


def test_only_what_was_used_stays(kept) -> None:
    (kept.folder / "ab" / f".{KEY}.tmp-machine-1").write_bytes(b"of a killed writer")
    assert kept.keep_only({KEY}) == (kept.folder / "ab" / KEY).stat().st_size
    assert [path.name for path in kept.folder.glob("*/*")] == [KEY]


def test_what_others_keep_there_stays(kept) -> None:
    """Files and folders of other names, also beside ours; a folder under a result's name."""
    strange = ["notes/list.txt", "ab/list.txt", f"ab/{KEY}.txt", f"xy/{OTHER}", f"ab/{'ef' * 32}/list.txt"]
    for name in strange:
        (kept.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (kept.folder / name).write_text("a person's own")
    assert kept.keep_only(()) == 0
    assert sorted(str(path.relative_to(kept.folder)) for path in kept.folder.rglob("*") if path.is_file()) == sorted(strange)


def test_a_folder_for_the_time_being(tmp_path) -> None:
    with kept_in(tmp_path / "cache", stays=False) as kept:
        kept.put(KEY, b"result")
        assert kept.get(KEY) == b"result" and kept.folder.is_dir()
    assert not kept.folder.exists() and not (tmp_path / "cache").exists()


def test_a_place_that_cannot_be_written_to(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="expected a place to write to"):
        Kept(tmp_path / "file" / "cache")
