"""The stage on a real Ray with a real checkpoint: records that `prepare` takes, the same bytes after any crash and for any workers."""

import fcntl
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep import sources
from data_prep.cluster import cluster
from data_prep.job import PrepareSettings, prepare
from data_prep.samples import DataError, Side, Turn
from data_prep.synthesize.cli import summary
from data_prep.synthesize.engine import WriteSettings
from data_prep.synthesize.filters import FilterSettings
from data_prep.synthesize.job import SynthesizeSettings, synthesize

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def ray_of_two() -> Iterator[None]:
    with cluster(2):
        yield


@pytest.fixture(scope="module")
def settings(corpus: Path, talker: Path, prompt_file: Path, tmp_path_factory: pytest.TempPathFactory) -> SynthesizeSettings:
    """Twenty rows with an image on the positive's side, in two files; two prompts each."""
    return SynthesizeSettings(
        roots=(corpus,),
        checkpoint=str(talker),
        out=tmp_path_factory.mktemp("written") / "qa" / "own.jsonl",
        prompts=prompt_file,
        write=WriteSettings(temperature=0, max_new_tokens=24),
        workers=1,
        chunk=3,
    )


@pytest.fixture(scope="module")
def journal(settings: SynthesizeSettings) -> bytes:
    """All rows, written by one worker; the filters of that run left nothing, so its journal stays."""
    strict = settings.model_copy(update={"filters": FilterSettings(max_answer_chars=1)})
    with pytest.raises(DataError, match=r"found no question and answer that passes the filters, of 40 about 20 rows \({'too_long': 40}\)"):
        synthesize(strict)
    return settings.out.with_name(".own.jsonl.journal").read_bytes()


@pytest.fixture(scope="module")
def written(settings: SynthesizeSettings, journal: bytes) -> Path:
    """The undisturbed result of one worker; not to be changed. Other filters do not have anything written again."""
    assert journal.count(b"\n") == 21
    said: list[str] = []
    synthesize(settings, said.append)
    assert said == ["20 rows were written about before: skipped"]
    return settings.out


def test_records(written: Path) -> None:
    records = [json.loads(line) for line in written.read_text().splitlines()]
    assert [record["id"] for record in records] == [f"mmeb-syn/Colours/{row}/{k}" for row in range(20) for k in (0, 1)]
    assert records[27] == {
        "id": "mmeb-syn/Colours/13/1",
        "source": "mmeb_synqa",
        "subset": "Colours",
        "split": "original",
        "row": 13,
        "side": "pos",
        "image": "images/13.png",
        "embed_text": "number 13",
        "conversations": [
            {"from": "human", "value": "<image>\nnumber 13\nwhat colour is the circle?"},
            {"from": "gpt", "value": "the circle is blue."},
        ],
        "generator": "talker",
        "gen": {"prompt_id": "asked", "temperature": 0.0, "seed": records[27]["gen"]["seed"]},
        "contrast": {"qry": "find 13", "pos_text": "number 13", "pos_image_path": "images/13.png"},
    }
    assert len({record["gen"]["seed"] for record in records}) == 40


def test_the_reader_and_prepare_take_them(written: Path, corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    images = corpus / "MMEB-train"
    [part] = sources.discover(written.parent, images)
    [_, sample] = sources.read(part, 0, 2)
    assert (sample.query.text, sample.query.images[0].name) == ("number 0", "images/0.png")
    assert sample.query == Side("number 0", sample.query.images)
    assert sample.turns == (Turn("what colour is the circle?", "the circle is blue."),)
    manifest = prepare(PrepareSettings(roots=(written.parent,), checkpoint=str(checkpoint), out=tmp_path, image_root=images, workers=1))
    assert (manifest.rows, manifest.rejected) == (40, [])


def test_two_workers_and_a_cut_journal_give_the_same_bytes(
    settings: SynthesizeSettings, journal: bytes, written: Path, tmp_path: Path
) -> None:
    """The journal of a run that ended in the middle of a line: some rows are kept, the others written."""
    other = settings.model_copy(update={"out": tmp_path / "own.jsonl", "workers": 2})
    path = tmp_path / ".own.jsonl.journal"
    path.write_bytes(journal[: journal.index(b'{"row": 9') + 30])
    said: list[str] = []
    synthesize(other, said.append)
    assert said == ["9 rows were written about before: skipped"]
    assert other.out.read_bytes() == written.read_bytes()
    assert not path.exists()


def test_a_finished_run_is_left_alone_and_a_damaged_one_refused(settings: SynthesizeSettings, written: Path) -> None:
    said: list[str] = []
    before = written.stat().st_mtime_ns
    report = synthesize(settings, said.append)
    assert said == [f"{written} is there already and whole: nothing to do"] and written.stat().st_mtime_ns == before
    assert summary(report) == "20 rows, 40 questions, 40 kept (100.0%), 0 spell the label"
    with pytest.raises(DataError, match="found a file of another run there"):
        synthesize(settings.model_copy(update={"seed": 1}))


def test_two_jobs_on_one_output_are_refused(settings: SynthesizeSettings, tmp_path: Path) -> None:
    with (tmp_path / ".own.jsonl.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another synthesize job is writing here"):
            synthesize(settings.model_copy(update={"out": tmp_path / "own.jsonl"}))


@pytest.mark.slow
def test_rejects_and_files_per_subset(settings: SynthesizeSettings, corpus: Path, tmp_path: Path) -> None:
    """Two runs into a folder, and what is refused."""
    no_image = settings.model_copy(update={"side": "qry", "out": tmp_path / "a", "rows_per_subset": 2})
    with pytest.raises(DataError, match=r"of 0 about 4 rows \({'row: no_image': 4}\)"):
        synthesize(no_image)
    few = settings.model_copy(update={"out": tmp_path / "b", "rows_per_subset": 1})
    assert synthesize(few)["files"].keys() == {"b/Colours.jsonl"}
    rows = [json.loads(line)["row"] for line in (tmp_path / "b" / "Colours.jsonl").read_text().splitlines()]
    assert rows == [0, 0, 12, 12]  # the first row of either file
    with pytest.raises(DataError, match="expected MMEB-train sets"):
        synthesize(settings.model_copy(update={"roots": (corpus / "chats",), "out": tmp_path / "c"}))


@pytest.mark.slow
def test_a_random_model_leaves_nothing_but_reasons(settings: SynthesizeSettings, base_checkpoint: Path, tmp_path: Path) -> None:
    few = {"out": tmp_path / "own.jsonl", "rows_per_subset": 1, "write": WriteSettings(max_new_tokens=4)}
    poor = settings.model_copy(update={"checkpoint": str(base_checkpoint), **few})
    with pytest.raises(DataError, match=r"passes the filters, of 4 about 2 rows \({.*'unfinished'"):
        synthesize(poor)
    assert list(tmp_path.glob("own*")) == []


@pytest.mark.slow
def test_killed_at_random_points_it_ends_with_the_same_bytes(settings: SynthesizeSettings, written: Path, tmp_path: Path) -> None:
    """SIGKILL of the driver, the same command again, five times, then to the end."""
    out = tmp_path / "own.jsonl"
    options = {"--checkpoint": settings.checkpoint, "--out": out, "--prompts": settings.prompts, "--temperature": 0}
    options |= {"--max-new-tokens": 24, "--workers": 1, "--chunk": 3}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "data_prep", "synthesize", str(settings.roots[0]), *words]
    journal, dice, killed = tmp_path / ".own.jsonl.journal", random.Random(0), 0
    for _ in range(5):
        before = journal.stat().st_size if journal.is_file() else 0
        driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait = before + dice.choice((1, 300, 2000))
        end = time.monotonic() + 120
        while (journal.stat().st_size if journal.is_file() else 0) < wait and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        driver.send_signal(signal.SIGKILL)
        killed += driver.wait() == -signal.SIGKILL and not out.exists()
    assert killed == 5
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert out.read_bytes() == written.read_bytes()
