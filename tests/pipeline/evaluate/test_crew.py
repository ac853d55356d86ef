"""The same scores and prediction files, byte for byte, for any number of workers, any batch, after kills, and from what was kept.

Real evaluations of the small checkpoint: a set of pictures for words, a benchmark of open questions, natively and from the chorus. Units
are made small, so that there are several of each.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from data_prep.samples import DataError
from pipeline.evaluate import crew as crew_module
from pipeline.evaluate import identity, units, worker
from pipeline.evaluate.__main__ import main
from pipeline.evaluate.crew import Crew
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.mmeb import plan_set
from pipeline.evaluate.worker import Job, Worker
from tests.data_prep.processes import workers

TOKENS = 100
"""Of a unit: two or three pictures, or a few words."""
PROJECT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def small_units(monkeypatch) -> None:
    monkeypatch.setattr(units, "EMBED_TOKENS", TOKENS)
    monkeypatch.setattr(units, "ANSWERS", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory, picture) -> Path:
    """MMEB-eval: six words, each with eight pictures to choose from; Open.tsv: six questions about pictures."""
    root = tmp_path_factory.mktemp("data")
    (root / "MMEB-eval/images").mkdir(parents=True)
    for i in range(8):
        (root / f"MMEB-eval/images/{i}.png").write_bytes(picture(i, 56 + 28 * (i % 2)).data)
    words = ["red", "blue", "grey", "green", "ring", "star"]
    paths = [f"{i}.png" for i in range(8)]
    rows = [dict(qry_text=word, qry_img_path="", tgt_text=[""] * 8, tgt_img_path=paths[i:] + paths[:i]) for i, word in enumerate(words)]
    (root / "MMEB-eval/Own").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "MMEB-eval/Own/test-0.parquet")
    lines = [f"{i}\t{base64.b64encode(picture(20 + i, 56 + 28 * (i % 3)).data).decode()}\thow many {i}?\tthree" for i in range(6)]
    (root / "Open.tsv").write_text("\n".join(["index\timage\tquestion\tanswer", *lines]) + "\n")
    return root


def arguments(checkpoint: Path, data: Path, out: Path, *more: object) -> list[str]:
    asked = ["--mmeb", data / "MMEB-eval", "--benchmarks", data / "Open.tsv", "--max-new-tokens", 4, "--out", out]
    return [
        str(word) for word in (checkpoint, *asked, "--track-uri", f"sqlite:///{out}/mlflow.db", "--track-artifacts", out / "mlflow", *more)
    ]


def results(out: Path) -> dict[str, bytes]:
    """Every prediction, and the scores."""
    scores = json.loads((out / "scores.json").read_text())
    return {path.name: path.read_bytes() for path in (out / "predictions").iterdir()} | {
        "scores": json.dumps([scores["retrieval"], scores["answers"], scores["headline"]]).encode()
    }


@pytest.fixture(scope="module")
def straight(checkpoint, data, tmp_path_factory) -> Path:
    """The undisturbed evaluation by one worker; its folder is not to be changed."""
    out = tmp_path_factory.mktemp("straight") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "EMBED_TOKENS", TOKENS)
        patch.setattr(units, "ANSWERS", 1)
        assert main(arguments(checkpoint, data, out)) == 0
    assert sorted(results(out)) == ["Open.compressed.jsonl", "Open.native.jsonl", "Own.jsonl", "scores"]
    return out


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
    for name, more in (("batch", ("--batch", 5)), ("bare", ("--no-cache", "--batch", 2))):
        assert main(arguments(checkpoint, data, tmp_path / name, *more)) == 0
        assert results(tmp_path / name) == results(straight)
    assert len(made) == 2 * len(list((straight / "cache").glob("*/*"))) and made.count("native") == made.count("compressed") == 12
    assert not (tmp_path / "bare/cache").exists()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers(checkpoint, data, straight, made, tmp_path, count: int) -> None:
    assert main(arguments(checkpoint, data, tmp_path / "out", "--workers", count)) == 0
    assert made == [], "this process computed nothing itself"
    assert results(tmp_path / "out") == results(straight)


@pytest.mark.slow
def test_workers_that_die_are_replaced(checkpoint, data, straight, tmp_path) -> None:
    """Three workers killed; the results are those of the undisturbed evaluation."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 3 and not over.wait(0.05):
            for process in set(workers(os.getpid(), b"ray::Worker")) - set(killed):
                if len(list((tmp_path / "out/cache").glob("*/*"))) > 2 * len(killed):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                    break

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert main(arguments(checkpoint, data, tmp_path / "out", "--workers", 2)) == 0
    finally:
        over.set()
        thread.join()
    assert len(killed) == 3
    assert results(tmp_path / "out") == results(straight)


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_evaluation_goes_on(checkpoint, data, straight, tmp_path, kills: int) -> None:
    """Killed by SIGKILL, each time with more results than before; what was kept is never computed again."""
    script = [sys.executable, str(Path(__file__).with_name("killed.py")), str(kills), str(TOKENS)]
    env = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*script, *arguments(checkpoint, data, tmp_path / "out")], env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["kills"], seen["status"], seen["again"]) == (kills, 0, 0)
    assert seen["kept"] == sorted(set(seen["kept"])), "every attempt got further"
    assert 0 < seen["kept"][0] < seen["kept"][-1] < seen["all"] == len(list((straight / "cache").glob("*/*")))
    assert results(tmp_path / "out") == results(straight)


@pytest.fixture
def copy(straight, data, checkpoint, tmp_path):
    """Copies of the data, the checkpoint and the finished evaluation, to be changed."""
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    shutil.copytree(straight, tmp_path / "out")
    return tmp_path


def again(copy: Path, *more: object) -> None:
    """Evaluate once more in the copied folder, and without it: the results are the same."""
    for out, words in ((copy / "out", more), (copy / "fresh", ("--no-cache", *more))):
        assert main(arguments(copy / "checkpoint", copy / "data", out, *words)) == 0
    assert results(copy / "out") == results(copy / "fresh")


@pytest.fixture
def fresh(made, straight):
    """What the first of `again`'s two evaluations computed; the second one computes all."""
    return lambda: sorted(made[: len(made) - len(list((straight / "cache").glob("*/*")))])


def test_nothing_is_computed_twice(copy, straight, fresh) -> None:
    again(copy)
    assert fresh() == [] and results(copy / "out") == results(straight)


def test_a_changed_image_is_computed_again(copy, straight, fresh, picture) -> None:
    (copy / "data/MMEB-eval/images/3.png").write_bytes(picture(77, 84).data)
    again(copy)
    assert fresh() == ["embed"] and results(copy / "out")["Own.jsonl"] != results(straight)["Own.jsonl"]


def test_a_changed_question_is_asked_again(copy, straight, fresh) -> None:
    path = copy / "data/Open.tsv"
    path.write_text(path.read_text().replace("how many 3?", "how much 3?"))
    again(copy)
    assert fresh() == ["compressed", "native"]


def test_a_changed_weight_changes_all(copy, straight, fresh) -> None:
    path = copy / "checkpoint/model.safetensors"
    tensors = load_file(path)
    next(tensor for name, tensor in sorted(tensors.items()) if name.endswith("down_proj.weight")).view(-1)[0] += 3
    save_file(tensors, path, {"format": "pt"})
    again(copy)
    assert (
        len(fresh()) == len(list((straight / "cache").glob("*/*"))) and results(copy / "out")["Own.jsonl"] != results(straight)["Own.jsonl"]
    )


@pytest.mark.parametrize("more", [("--k", 2), ("--max-pixels", 28 * 28 * 4)], ids=["k", "max_pixels"])
def test_a_changed_setting_changes_all(copy, made, more) -> None:
    assert main(arguments(copy / "checkpoint", copy / "data", copy / "out", *more)) == 0
    assert made.count("native") == made.count("compressed") == 6 and made.count("embed") > 1


def test_a_damaged_result_is_said_and_made_again(copy, straight, fresh, capsys) -> None:
    path = sorted((copy / "out/cache").glob("*/*"))[7]
    path.write_bytes(path.read_bytes()[:-1])
    again(copy)
    assert len(fresh()) == 1 and results(copy / "out") == results(straight)
    assert f"{path}: found a damaged result" in capsys.readouterr().err


def test_an_image_that_changes_meanwhile_is_refused(checkpoint, data, encoder, tmp_path, picture) -> None:
    from data_prep.sources.mmeb_eval import load_sets

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
def test_numbers_that_are_none_are_refused(checkpoint, data, tmp_path, capsys, words) -> None:
    with pytest.raises(SystemExit):
        main(arguments(checkpoint, data, tmp_path / "out", *words))
    assert f"found {words[1]!r}, expected a number from 1 on" in capsys.readouterr().err
