"""The same scores and prediction files, byte for byte, for any number of workers, any batch, after kills, and from what was kept.

Real evaluations of the small checkpoint: a set of pictures for words, a benchmark of open questions, natively and from the chorus. Units
are made small, so that there are several of each.
"""

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.encode import Encoder, EncodeSettings
from data_prep.samples import DataError
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.mmeb_eval import load_sets
from pipeline.evaluate import crew as crew_module
from pipeline.evaluate import identity, units, worker
from pipeline.evaluate.__main__ import main
from pipeline.evaluate.crew import Crew
from pipeline.evaluate.evaluation import score
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.mmeb import plan_set
from pipeline.evaluate.report import headline
from pipeline.evaluate.worker import Job, Worker
from tests.data_prep.processes import workers

TOKENS = 100
"""Of a unit: two or three pictures, or a few words."""
QUESTIONS = 10
PROJECT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def small_units(monkeypatch) -> None:
    monkeypatch.setattr(units, "EMBED_TOKENS", TOKENS)
    monkeypatch.setattr(units, "ANSWERS", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory, picture) -> Path:
    """MMEB-eval: six words, each with eight pictures to choose from; Open.tsv: questions about pictures."""
    root = tmp_path_factory.mktemp("data")
    (root / "MMEB-eval/images").mkdir(parents=True)
    for i in range(8):
        (root / f"MMEB-eval/images/{i}.png").write_bytes(picture(i, 56 + 28 * (i % 2)).data)
    words = ["red", "blue", "grey", "green", "ring", "star"]
    paths = [f"{i}.png" for i in range(8)]
    rows = [dict(qry_text=word, qry_img_path="", tgt_text=[""] * 8, tgt_img_path=paths[i:] + paths[:i]) for i, word in enumerate(words)]
    (root / "MMEB-eval/Own").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "MMEB-eval/Own/test-0.parquet")
    lines = [f"{i}\t{base64.b64encode(picture(20 + i, 56 + 28 * (i % 3)).data).decode()}\thow many {i}?\tthree" for i in range(QUESTIONS)]
    (root / "Open.tsv").write_text("\n".join(["index\timage\tquestion\tanswer", *lines]) + "\n")
    return root


def evaluate(checkpoint: Path, data: Path, out: Path, k: int | None = None, crew: Crew = Crew(1), cache: bool = True, **limits) -> dict:
    """Score as the command does; every prediction file, and the scores."""
    encoder = Encoder(checkpoint, EncodeSettings(**limits)).shortened(k)
    sets, benchmarks = load_sets(data / "MMEB-eval"), [load_benchmark(data / "Open.tsv")]
    report = score(str(checkpoint), encoder, sets, benchmarks, out, None, 4, crew, cache)
    return {path.name: path.read_bytes() for path in (out / "predictions").iterdir()} | {"scores": headline(report)}


@pytest.fixture(scope="module")
def straight(checkpoint, data, tmp_path_factory) -> tuple[Path, dict]:
    """The undisturbed evaluation by one worker: its folder, which is not to be changed, and what it found."""
    out = tmp_path_factory.mktemp("straight") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "EMBED_TOKENS", TOKENS)
        patch.setattr(units, "ANSWERS", 1)
        found = evaluate(checkpoint, data, out)
    assert sorted(found) == ["Open.compressed.jsonl", "Open.native.jsonl", "Own.jsonl", "scores"]
    return out, found


def count(out: Path) -> int:
    """Units that are kept."""
    return len(list((out / "cache").glob("*/*")))


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The mode of every unit that this process computes from here on."""
    made, real = [], worker.compute

    def compute(unit, opened):
        made.append(unit.mode)
        return real(unit, opened)

    monkeypatch.setattr(worker, "compute", compute)
    return made


def test_any_batch_and_no_cache(checkpoint, data, straight, made, tmp_path) -> None:
    for name, crew, cache in (("batch", Crew(1, batch=5), True), ("bare", Crew(1, batch=2), False)):
        assert evaluate(checkpoint, data, tmp_path / name, crew=crew, cache=cache) == straight[1]
    assert len(made) == 2 * count(straight[0]) and made.count("native") == made.count("compressed") == 2 * QUESTIONS
    assert not (tmp_path / "bare/cache").exists()


def test_threads_are_pinned(checkpoint, data, straight, monkeypatch, tmp_path) -> None:
    """One for every unit, however many this process has; afterwards it has them again."""
    seen, real = [], worker.compute
    monkeypatch.setattr(worker, "compute", lambda *args: (seen.append(torch.get_num_threads()), real(*args))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert evaluate(checkpoint, data, tmp_path / "out") == straight[1]
        assert set(seen) == {1} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers(checkpoint, data, straight, made, tmp_path, workers: int) -> None:
    assert evaluate(checkpoint, data, tmp_path / "out", crew=Crew(workers)) == straight[1]
    assert made == [], "this process computed nothing itself"


@pytest.mark.slow
def test_workers_that_die_are_replaced(checkpoint, data, straight, tmp_path) -> None:
    """Three workers killed; the results are those of the undisturbed evaluation."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 3 and not over.wait(0.02):
            for process in set(workers(os.getpid(), b"ray::Worker")) - set(killed):
                if count(tmp_path / "out") > 2 * len(killed):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    break

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert evaluate(checkpoint, data, tmp_path / "out", crew=Crew(2)) == straight[1]
    finally:
        over.set()
        thread.join()
    assert len(killed) == 3


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_evaluation_goes_on(checkpoint, data, straight, tmp_path, kills: int) -> None:
    """Killed by SIGKILL, each time with more results than before; what was kept is never computed again."""
    script = [sys.executable, __file__, str(kills), str(checkpoint), str(data), str(tmp_path / "out")]
    env = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["kills"], seen["status"], seen["again"]) == (kills, 0, 0)
    assert seen["kept"] == sorted(set(seen["kept"])), "every attempt got further"
    assert seen["kept"][0] > 0 and seen["kept"][-1] < count(tmp_path / "out") == count(straight[0])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out/predictions").iterdir()} | {"scores": seen["scores"]} == straight[1]


@pytest.fixture
def copy(straight, data, checkpoint, tmp_path) -> Path:
    """Copies of the data, the checkpoint and the finished evaluation, to be changed."""
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    shutil.copytree(straight[0], tmp_path / "out")
    return tmp_path


@pytest.fixture
def again(copy, made):
    """Evaluates once more in the copied folder, and anew: the results are the same. Returns what the first had to compute, and found."""

    def again() -> tuple[list[str], dict]:
        found = evaluate(copy / "checkpoint", copy / "data", copy / "out")
        computed = sorted(made)
        assert evaluate(copy / "checkpoint", copy / "data", copy / "fresh", cache=False) == found
        return computed, found

    return again


def test_nothing_is_computed_twice(again, straight) -> None:
    assert again() == ([], straight[1])


def test_a_changed_image_is_computed_again(copy, again, straight, picture) -> None:
    (copy / "data/MMEB-eval/images/3.png").write_bytes(picture(77, 84).data)
    computed, found = again()
    assert computed == ["embed"] and found["Own.jsonl"] != straight[1]["Own.jsonl"]


def test_a_changed_question_is_asked_again(copy, again) -> None:
    path = copy / "data/Open.tsv"
    path.write_text(path.read_text().replace("how many 3?", "how much 3?"))
    assert again()[0] == ["compressed", "native"]


def test_a_changed_weight_changes_all(copy, again, straight) -> None:
    path = copy / "checkpoint/model.safetensors"
    tensors = load_file(path)
    next(tensor for name, tensor in sorted(tensors.items()) if name.endswith("down_proj.weight")).view(-1)[0] += 3
    save_file(tensors, path, {"format": "pt"})
    computed, found = again()
    assert len(computed) == count(straight[0]) and found["Own.jsonl"] != straight[1]["Own.jsonl"]


@pytest.mark.parametrize("more", [{"k": 2}, {"max_pixels": 28 * 28 * 4}], ids=["k", "max_pixels"])
def test_a_changed_setting_changes_all(copy, made, more) -> None:
    evaluate(copy / "checkpoint", copy / "data", copy / "out", **more)
    assert made.count("native") == made.count("compressed") == QUESTIONS and len(made) == count(copy / "out")


def test_a_damaged_result_is_said_and_made_again(copy, again, straight, capsys) -> None:
    path = sorted((copy / "out/cache").glob("*/*"))[7]
    path.write_bytes(path.read_bytes()[:-1])
    computed, found = again()
    assert len(computed) == 1 and found == straight[1]
    assert f"{path}: found a damaged result" in capsys.readouterr().err


def test_an_image_that_changes_meanwhile_is_refused(checkpoint, data, encoder, tmp_path, picture) -> None:
    shutil.copytree(data, tmp_path / "data")
    (own,) = load_sets(tmp_path / "data/MMEB-eval")
    task = plan_set(own, encoder, {})
    (tmp_path / "data/MMEB-eval/images/3.png").write_bytes(picture(77, 84).data)
    with pytest.raises(DataError, match=r"evaluation side 3.png: found an image file that has changed"):
        Crew(1).compute([task], Job(str(checkpoint), None, identity.numerics()), Kept(tmp_path / "kept"))


def test_a_worker_of_another_kind_is_refused(checkpoint) -> None:
    other = identity.numerics() | {"device": "another"}
    with pytest.raises(DataError, match=r"expected .*'another'.*Evaluate on machines of one kind"):
        Worker(Job(str(checkpoint), None, other)).work([])


def test_who_computes_where_nobody_says(monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for gpus, here in ((0, True), (1, True), (8, False)):
        monkeypatch.setattr(crew_module.torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert Crew().here is here and Crew(1).here and not Crew(2).here
    monkeypatch.setenv("RAY_ADDRESS", "a cluster")
    assert not Crew(1).here


@pytest.mark.parametrize("words", [("--workers", "0"), ("--batch", "none")])
def test_numbers_that_are_none_are_refused(checkpoint, capsys, words) -> None:
    with pytest.raises(SystemExit):
        main([str(checkpoint), *words])
    assert f"found {words[1]!r}, expected a number from 1 on" in capsys.readouterr().err


def killed_and_ended(kills: int, checkpoint: Path, data: Path, out: Path) -> dict:
    """One evaluation, killed at random moments, each time with a result or two more, then left to end: what was seen of it.

    Every attempt is a process forked before torch has computed anything. `kept`: results after each kill; `again`: results that were
    there and were written a second time.
    """
    rng = random.Random(0)
    kept: dict[str, int] = {}
    found, again = [], 0

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (out / "cache").glob("*/*") if not path.name.startswith(".")}

    for _ in range(kills):
        wanted = len(kept) + 1
        child = _forked(checkpoint, data, out)
        while len(written()) < wanted:
            if os.waitpid(child, os.WNOHANG)[0]:
                raise SystemExit("the evaluation ended before it was killed: give it more to do")
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        before, kept = kept, written()
        again += sum(kept.get(name) != when for name, when in before.items())
        found.append(len(kept))
    status = os.waitstatus_to_exitcode(os.waitpid(_forked(checkpoint, data, out), 0)[1])
    again += sum(written().get(name) != when for name, when in kept.items())
    scores = json.loads((out / "scores").read_text())
    return {"kills": len(found), "kept": found, "again": again, "status": status, "scores": scores}


def _forked(checkpoint: Path, data: Path, out: Path) -> int:
    if child := os.fork():
        return child
    (out / "scores").write_text(json.dumps(evaluate(checkpoint, data, out)["scores"]))
    os._exit(0)


if __name__ == "__main__":
    units.EMBED_TOKENS, units.ANSWERS = TOKENS, 1
    print(json.dumps(killed_and_ended(int(sys.argv[1]), *map(Path, sys.argv[2:]))))
