"""The job on a real Ray: the same bytes for any number of workers, after a kill, and after damage; nothing lost, nothing hidden."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.cluster import cluster
from data_prep.encode import EncodeSettings
from data_prep.job import PrepareSettings, plan, prepare
from data_prep.samples import DataError
from data_prep.shards import load_manifest, verify_shards
from data_prep.sources import Part
from pipeline.batches.plan import SourceRows
from pipeline.batches.reader import ShardReader


@pytest.fixture(scope="module", autouse=True)
def ray_of_two() -> Iterator[None]:
    """One Ray of two workers for all tests here, started as the job itself starts it."""
    with cluster(2):
        yield


@pytest.fixture
def settings(corpus: Path, checkpoint: Path, tmp_path: Path) -> PrepareSettings:
    """Four rows a shard: 5 shards of pairs, 3 of conversations."""
    return PrepareSettings(roots=(corpus,), checkpoint=str(checkpoint), out=tmp_path / "shards", rows_per_shard=4, workers=2)


@pytest.fixture(scope="module")
def prepared(corpus: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed result; not to be changed."""
    out = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(PrepareSettings(roots=(corpus,), checkpoint=str(checkpoint), out=out, rows_per_shard=4, workers=1))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def ids(folder: Path) -> list[str]:
    tables = [pa.ipc.open_file(pa.memory_map(str(folder / shard.name))).read_all() for shard in load_manifest(folder).shards]
    return [value for table in tables for value in table["id"].to_pylist()]


def test_every_row_once_in_reading_order(prepared: Path) -> None:
    manifest = load_manifest(prepared)
    verify_shards(prepared, manifest)
    assert [(shard.name, shard.rows) for shard in manifest.shards] == [
        ("0000-mmeb_train.Colours-000000.arrow", 4),
        ("0000-mmeb_train.Colours-000001.arrow", 4),
        ("0000-mmeb_train.Colours-000002.arrow", 4),
        ("0001-mmeb_train.Colours-000000.arrow", 4),
        ("0001-mmeb_train.Colours-000001.arrow", 4),
        ("0002-sharegpt4v.chats-000000.arrow", 4),
        ("0002-sharegpt4v.chats-000001.arrow", 4),
        ("0002-sharegpt4v.chats-000002.arrow", 2),
    ]
    assert ids(prepared) == [f"mmeb_train/Colours/original/{i}" for i in range(20)] + [f"sharegpt4v/chats/{i}" for i in range(10)]
    assert manifest.rejected == []
    data = manifest.fingerprint["data"]
    assert {source: entry["rows"] for source, entry in data.items()} == {"mmeb_train/Colours": 20, "sharegpt4v/chats": 10}


def test_two_workers_make_the_same_bytes(settings: PrepareSettings, prepared: Path) -> None:
    prepare(settings)
    assert contents(settings.out) == contents(prepared)
    assert len(contents(prepared)) == 18  # 8 shards, 8 records, settings, manifest


def test_a_second_run_makes_nothing_again(settings: PrepareSettings, prepared: Path) -> None:
    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in settings.out.glob("*-*")}

    said: list[str] = []
    first = prepare(settings)
    before = times()
    assert prepare(settings, said.append) == first
    assert said == ["8 of 8 shards are there already and intact: skipped"]
    assert len(before) == 16 and times() == before
    assert contents(settings.out) == contents(prepared)


def test_only_what_is_lost_or_damaged_is_made_again(settings: PrepareSettings, prepared: Path) -> None:
    prepare(settings)
    shards = sorted(settings.out.glob("*.arrow"))
    before = {path.name: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    data = bytearray(shards[3].read_bytes())
    data[len(data) // 2] ^= 1
    shards[3].write_bytes(data)
    shards[5].with_suffix(".json").write_text("{")
    (settings.out / "manifest.json").write_text("{")
    (settings.out / f".{shards[1].name}.tmp-1").touch()
    said: list[str] = []
    prepare(settings, said.append)
    assert said == ["5 of 8 shards are there already and intact: skipped"]
    assert contents(settings.out) == contents(prepared)
    changed = [number for number, path in enumerate(shards) if path.stat().st_mtime_ns != before[path.name]]
    assert changed == [1, 3, 5]


def test_a_file_with_and_without_pairs_becomes_two_sources_that_the_trainer_takes(
    settings: PrepareSettings, picture_56: bytes, tmp_path: Path
) -> None:
    """The same bytes from one worker and from two; a second run makes nothing again."""
    root = tmp_path / "synqa"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").write_bytes(picture_56)
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "noise"}]
    plain = {"image": "images/a.png", "embed_text": "find", "conversations": turns}
    rows = [plain | ({"contrast": {"pos_text": f"number {i}"}} if i % 3 else {}) for i in range(12)]
    (root / "qa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, two = (settings.model_copy(update={"roots": (root,), "out": tmp_path / f"{n}", "workers": n}) for n in (1, 2))
    manifest = prepare(one)
    assert [(shard.name, shard.rows) for shard in manifest.shards] == [
        ("0000-synqa.qa-000000.arrow", 4),
        ("0000-synqa.qa-000001.arrow", 4),
        ("0001-synqa.qa-unpaired-000000.arrow", 4),
    ]
    assert ids(one.out)[6:] == ["synqa/qa/10", "synqa/qa/11", *(f"synqa/qa-unpaired/{i}" for i in (0, 3, 6, 9))]
    assert ShardReader(one.out).sources() == ([SourceRows("synqa/qa", 0, 8)], [SourceRows("synqa/qa-unpaired", 8, 4)])
    prepare(two)
    assert contents(two.out) == contents(one.out)
    said: list[str] = []
    assert prepare(two, said.append) == manifest
    assert said == ["3 of 3 shards are there already and intact: skipped"]
    with pytest.raises(DataError, match=r"qa\.jsonl: found it twice among the folders given"):
        prepare(two.model_copy(update={"roots": (root, root)}))


@pytest.mark.parametrize(
    "other",
    [{"rows_per_shard": 5}, {"encode": EncodeSettings(max_tokens=100)}, {"encode": EncodeSettings(max_pixels=7840)}],
)
def test_other_settings_on_the_same_folder_are_refused(settings: PrepareSettings, other: dict) -> None:
    prepare(settings)
    before = contents(settings.out)
    with pytest.raises(DataError, match="found shards made from other data, another tokenizer or other settings"):
        prepare(settings.model_copy(update=other))
    assert contents(settings.out) == before


def test_other_data_on_the_same_folder_is_refused(
    settings: PrepareSettings, write_corpus: Callable[[Path], Path], tmp_path: Path
) -> None:
    """As many rows, other bytes."""
    prepare(settings)
    root = write_corpus(tmp_path / "data")
    path = root / "chats" / "chats.json"
    path.write_text(path.read_text().replace("ring 3", "ring three"))
    with pytest.raises(DataError, match="found shards made from other data"):
        prepare(settings.model_copy(update={"roots": (root,)}))


def test_a_folder_with_foreign_shards_is_refused(settings: PrepareSettings) -> None:
    settings.out.mkdir()
    (settings.out / "old.arrow").touch()
    with pytest.raises(DataError, match=r"found old\.arrow but no settings\.json"):
        prepare(settings)


def test_two_jobs_on_one_folder_are_refused(settings: PrepareSettings) -> None:
    settings.out.mkdir()
    with (settings.out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"another prepare job is writing here \(it has just begun\); wait for it, or name another"):
            prepare(settings)
    assert list(contents(settings.out)) == []
    assert prepare(settings).rows == 30


def test_unusable_rows_are_set_aside_with_reasons(
    settings: PrepareSettings, write_corpus: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "data")
    (root / "MMEB-train" / "images" / "3.png").write_bytes(b"no picture")
    (root / "MMEB-train" / "images" / "13.png").unlink()
    path = root / "chats" / "images" / "9.png"
    path.write_bytes(path.read_bytes()[:100])
    manifest = prepare(settings.model_copy(update={"roots": (root,), "max_reject_share": 0.1}))
    reasons = {row.id: row.reason.split(":")[0] for row in manifest.rejected}
    assert reasons == {
        "mmeb_train/Colours/original/3": "format",
        "mmeb_train/Colours/original/13": "missing",
        "sharegpt4v/chats/9": "broken",
    }
    assert (manifest.rows, [shard.rows for shard in manifest.shards]) == (27, [3, 4, 4, 3, 4, 4, 4, 1])
    assert set(ids(settings.out)).isdisjoint(reasons) and len(set(ids(settings.out))) == 27


def test_too_many_unusable_rows_stop_the_job_every_time(
    settings: PrepareSettings, write_corpus: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "data")
    for number in range(2, 6):
        (root / "chats" / "images" / f"{number}.png").unlink()
    strict = settings.model_copy(update={"roots": (root,), "max_reject_share": 0.1, "rows_per_shard": 30})
    for _ in range(2):  # the second time every shard is there already
        with pytest.raises(DataError, match=r"found 4 rows that cannot be used, more than max_reject_share = 10\.00% allows") as caught:
            prepare(strict)
        assert "sharegpt4v/chats/2: missing" in str(caught.value)
        assert list(json.loads((strict.out / "rejected.json").read_text())) == [f"sharegpt4v/chats/{i}" for i in range(2, 6)]
        assert not (strict.out / "manifest.json").exists()
    assert len(list(strict.out.glob("*.arrow"))) == 3
    assert len(prepare(strict.model_copy(update={"max_reject_share": 0.15})).rejected) == 4
    assert not (strict.out / "rejected.json").exists()


def test_a_damaged_file_stops_the_job_in_plain_words(
    settings: PrepareSettings, write_corpus: Callable[[Path], Path], tmp_path: Path
) -> None:
    """The worker's error reaches the caller as it was raised, without the worker's stack."""
    root = write_corpus(tmp_path / "data")
    path = root / "MMEB-train" / "Colours" / "original-00000-of-00002.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows, path, write_page_checksum=True, compression="none", use_dictionary=False, write_statistics=False)
    data = path.read_bytes()
    place = data.index(b"number 9")
    path.write_bytes(data[:place] + b"NUMBER" + data[place + 6 :])
    with pytest.raises(DataError) as caught:
        prepare(settings.model_copy(update={"roots": (root,)}))
    assert str(caught.value).startswith(f"{path}: damaged data in row group 0")
    assert "Traceback" not in str(caught.value)
    assert not (settings.out / "manifest.json").exists()


def test_two_sets_of_one_name_are_refused(
    settings: PrepareSettings, write_corpus: Callable[[Path], Path], tmp_path: Path, corpus: Path
) -> None:
    other = write_corpus(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        prepare(settings.model_copy(update={"roots": (corpus, other)}))
    ours, theirs = (root / "MMEB-train" / "Colours" for root in (corpus, other))
    assert f"mmeb_train/Colours: found sets of this name in {ours} and in {theirs}; expected one" in str(caught.value)
    with pytest.raises(DataError, match="found it twice among the folders given"):
        prepare(settings.model_copy(update={"roots": (corpus, corpus / "MMEB-train")}))
    assert not settings.out.exists()


def test_relative_paths(settings: PrepareSettings, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers do not share the driver's working folder."""
    monkeypatch.chdir(settings.out.parent)
    relative = {name: Path(os.path.relpath(getattr(settings, name))) for name in ("checkpoint", "out")}
    roots = (Path(os.path.relpath(settings.roots[0])),)
    prepare(settings.model_copy(update={"checkpoint": str(relative["checkpoint"]), "out": relative["out"], "roots": roots}))
    assert contents(settings.out) == contents(prepared)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(DataError, match="found a relative path on a Ray cluster"):
        prepare(settings.model_copy(update={"out": Path("elsewhere")}))


def test_a_killed_run_goes_on_where_it_was(settings: PrepareSettings, prepared: Path) -> None:
    """SIGKILL after the second shard, then the same command again."""
    arguments = ["prepare", *map(str, settings.roots), "--checkpoint", settings.checkpoint, "--out", str(settings.out)]
    command = [sys.executable, "-m", "data_prep", *arguments, "--rows-per-shard", "4", "--workers", "1"]
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300  # it ends as soon as there are two; a busy machine takes its time
    while len(list(settings.out.glob("*.arrow"))) < 2 and time.monotonic() < end:
        time.sleep(0.002)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    finished = len(list(settings.out.glob("*.json"))) - 1
    assert 1 <= finished < 8 and not (settings.out / "manifest.json").exists()
    said: list[str] = []
    prepare(settings, said.append)
    assert said[0].endswith("of 8 shards are there already and intact: skipped")
    assert contents(settings.out) == contents(prepared)


@given(st.lists(st.integers(1, 40), max_size=6), st.integers(1, 15))
def test_plan_covers_every_row_once_in_order(lengths: list[int], rows_per_shard: int) -> None:
    parts = [Part(f"s/{number % 2}", "synqa", Path(f"{number}"), rows, Path()) for number, rows in enumerate(lengths)]
    slices = plan(parts, rows_per_shard)
    covered = [(piece.part, row) for piece in slices for row in range(piece.start, piece.stop)]
    assert covered == [(part, row) for part in parts for row in range(part.rows)]
    assert all(0 < piece.stop - piece.start <= rows_per_shard for piece in slices)
    assert sorted({piece.name for piece in slices}) == [piece.name for piece in slices]
