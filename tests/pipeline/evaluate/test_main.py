"""The evaluation command: what it reports at a chosen k, what it keeps of attention maps, and what it refuses before any work."""

import base64
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.lock import hold
from data_prep.samples import DataError, Side
from data_prep.schema import Role
from data_prep.sources.benchmarks import load_benchmark
from pipeline.evaluate import __main__ as main_module
from pipeline.evaluate import evaluation, judge
from pipeline.evaluate.__main__ import _check_owner, main
from pipeline.evaluate.endpoint import KEY_VARIABLE
from pipeline.evaluate.evaluation import score
from pipeline.evaluate.report import headline
from tests.pipeline.evaluate.judge_server import JudgeServer


@pytest.fixture
def tsv(picture, tmp_path):
    """Three open questions about pictures of different sizes."""
    rows = [f"{i}\t{base64.b64encode(picture(i, 56 + 28 * i).data).decode()}\thow many?\tthree" for i in range(3)]
    path = tmp_path / "Open.tsv"
    path.write_text("\n".join(["index\timage\tquestion\tanswer", *rows]) + "\n")
    return path


@pytest.mark.parametrize(("k", "fact"), [(1, "1 of 4"), (3, "3 of 4"), (None, "4 of 4")])
def test_scores_at_k(checkpoint, encoder, tsv, tmp_path, k, fact) -> None:
    short = encoder.shortened(k)
    benchmark = load_benchmark(tsv)
    result = score(str(checkpoint), short, [], [benchmark], tmp_path / "out")
    assert result.facts["chorus tokens"] == fact
    lengths = [int(np.flatnonzero(short.sequence(Side(images=row.images)).roles == Role.CHORUS)[-1]) + 1 for row in benchmark.rows]
    shares = [(k or 4) / length for length in lengths]
    lines = [json.loads(line) for line in (tmp_path / "out/predictions/Open.compressed.jsonl").read_text().splitlines()]
    assert [line["cache_share"] for line in lines] == shares
    native, compressed = result.answers
    assert (native.cache_share, compressed.cache_share) == (1.0, pytest.approx(sum(shares) / 3))


@pytest.fixture
def mmeb(picture, tmp_path):
    """A set of text queries, then one of six image queries, two of them about the same image."""
    root = tmp_path / "MMEB-eval"
    queries = {"Asked": [("which?", "")] * 2, "Shown": [("look", f"{i}.png") for i in (0, 0, 1, 2, 3, 4)]}
    (root / "images").mkdir(parents=True)
    for i in range(5):
        (root / f"images/{i}.png").write_bytes(picture(i, 56 + 28 * (i % 2)).data)
    for name, rows in queries.items():
        (root / name).mkdir()
        table = [{"qry_text": text, "qry_img_path": path, "tgt_text": ["yes", "no"], "tgt_img_path": ["", ""]} for text, path in rows]
        pq.write_table(pa.Table.from_pylist(table), root / name / "test-00000.parquet")
    return root


def test_attention_maps_of_the_first_queries(checkpoint, mmeb, tmp_path) -> None:
    """Drawn beside the plots, in the report, and in MLflow as artifacts and metrics."""
    out, store = tmp_path / "out", f"sqlite:///{tmp_path}/mlflow.db"
    words = ["--out", str(out), "--track-uri", store, "--track-artifacts", str(tmp_path / "artifacts")]
    assert main([str(checkpoint), "--mmeb", str(mmeb), *words]) == 0
    names = [f"{i:02}-{i}.{ending}" for i in range(4) for ending in ("json", "png")]
    assert sorted(path.name for path in (out / "plots/attention").iterdir()) == names
    drawn = [json.loads((out / "plots/attention" / name).read_text()) for name in names[::2]]
    assert [numbers["grid"] for numbers in drawn] == [[2, 2], [2, 3], [2, 2], [2, 3]]
    means = {name: sum(numbers[name] for numbers in drawn) / 4 for name in ("entropy", "overlap", "image_mass", "even_mass")}
    scores = json.loads((out / "scores.json").read_text())
    assert scores["attention"] == pytest.approx(means) and "4 queries" in scores["facts"]["chorus attention"]
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("crem").experiment_id])
    logged = {name: value for name, value in run.data.metrics.items() if name.startswith("attention/")}
    assert logged == pytest.approx({f"attention/{name}": means[name] for name in ("entropy", "overlap", "image_mass")})
    page = (out / "report.html").read_text()
    assert page.count("data:image/") > 4 and "report.html" in [item.path for item in client.list_artifacts(run.info.run_id)]
    assert [item.path for item in client.list_artifacts(run.info.run_id, "plots/attention")] == [f"plots/attention/{n}" for n in names]


def test_no_attention_maps_without_query_images(checkpoint, encoder, tsv, tmp_path) -> None:
    result = score(str(checkpoint), encoder, [], [load_benchmark(tsv)], tmp_path / "out")
    assert result.attention == {} and "chorus attention" not in result.facts
    assert not (tmp_path / "out/plots").exists()
    assert not [name for name in headline(result) if name.startswith("attention/")]


def words(store: str, *more: object) -> list[str]:
    return [*map(str, more), "--track-uri", f"sqlite:///{store}/mlflow.db", "--track-artifacts", f"{store}/artifacts"]


def test_a_judge_and_a_base(checkpoint, tsv, tmp_path, monkeypatch, capsys) -> None:
    """The same command scores the base and then ours: grades come from the judge, the difference from the base, the key goes nowhere."""
    mmvet = tsv.rename(tmp_path / "MMVet.tsv")
    key = "a-key-of-many-letters"
    monkeypatch.setenv(KEY_VARIABLE, key)
    limits = ("--max-new-tokens", 4, "--min-pixels", 784, "--max-pixels", 3136)
    with JudgeServer(lambda prompt: "0.5", key) as server:
        judged = ("--benchmarks", mmvet, "--judge", server.url, "--judge-model", "wise", *limits)
        asked = []
        for out in ("base", "ours", "ours"):
            base = () if out == "base" else ("--base", tmp_path / "base")
            assert main([str(checkpoint), *words(tmp_path, *judged, *base, "--out", tmp_path / out)]) == 0
            asked.append(len(server.asked))
    assert 0 < asked[0] < asked[1] == asked[2], "the rerun in the same folder asked nothing"
    scores = json.loads((tmp_path / "ours/scores.json").read_text())
    graded = [answer for answer in scores["answers"] if answer["kind"] == "open, graded by a judge"]
    assert [(answer["score"], answer["judge"], answer["judged_share"]) for answer in graded] == [(0.5, "wise", 1.0)] * 2
    assert scores["facts"]["judge"].startswith("wise: 0 questions asked, ")
    shown = capsys.readouterr()
    *_, line = [line for line in shown.out.splitlines() if line.startswith("MMVet, open, graded by a judge")]
    assert line.split()[-5:] == ["50.0", "50.0", "50.0", "+0.0", "+0.0"]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key.encode() not in written and key not in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge-model", "wise"), "found a model without a server"),
        (("--judge", "http://127.0.0.1:9/v1"), "expected --judge-model NAME"),
        (("--judge", "http://127.0.0.1:9/v1", "--judge-model", "wise"), "found no answer of wise"),
        (("--judge", "http://example.org/v1", "--judge-model", "wise"), "expected https, or a server on this machine"),
        (("--base", "nowhere"), "--base nowhere: found no scores there"),
    ],
)
def test_refused_before_the_model_is_opened(tsv, tmp_path, monkeypatch, capsys, checkpoint, arguments, message) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-key-of-many-letters")
    monkeypatch.setattr(evaluation, "open_checkpoint", None)
    monkeypatch.setattr(judge, "ATTEMPTS", 1)
    assert main([str(checkpoint), *words(tmp_path, "--benchmarks", tsv, "--out", tmp_path / "out", *arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_images_are_told_before_the_model_is_opened(checkpoint, mmeb, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(evaluation, "open_checkpoint", None)
    (mmeb / "images/3.png").unlink()
    assert main([str(checkpoint), *words(tmp_path, "--mmeb", mmeb, "--out", tmp_path / "out")]) == 2
    assert "found 1 of 5 image files missing or unusable: missing: '3.png'" in capsys.readouterr().err


@pytest.mark.parametrize("k", ["0", "5"])
def test_a_k_that_the_checkpoint_does_not_have(checkpoint, tsv, tmp_path, capsys, k) -> None:
    assert main([str(checkpoint), "--benchmarks", str(tsv), "--k", k, "--out", str(tmp_path / "out")]) == 2
    assert f"error: k = {k}: found a checkpoint of 4 chorus tokens; expected 1 to 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_average_is_no_headline_of_the_run(checkpoint, tsv, tmp_path, monkeypatch) -> None:
    """Both exports of a run, scored without an --out: each has a folder, both are the run's children, its own scores are the weights'."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("crem", str(tmp_path / "artifacts"))
    trained = client.create_run(experiment).info.run_id
    monkeypatch.chdir(tmp_path)
    headlines = []
    for name, said in (("export-ema", {"averaged": True}), ("export", {})):
        shutil.copytree(checkpoint, tmp_path / "run" / name)
        (tmp_path / "run" / name / "crem.json").write_text(json.dumps({"tracked_run": trained} | said))
        assert main([f"run/{name}", *words(tmp_path, "--benchmarks", tsv, "--max-new-tokens", 2)]) == 0
        headlines.append(set(client.get_run(trained).data.metrics))
    assert headlines[0] == set() and any("native" in name for name in headlines[1])
    assert sorted(path.name for path in (tmp_path / "work/eval").iterdir()) == ["run", "run-ema"]
    tags = [run.data.tags for run in client.search_runs([experiment]) if run.info.run_id != trained]
    assert [tag["crem.scored_run_id"] for tag in tags] == [trained] * 2
    assert sorted(tag.get("crem.averaged", "-") for tag in tags) == ["-", "true"]


def test_another_checkpoints_scores_are_not_written_over(checkpoint, tsv, tmp_path, monkeypatch, capsys) -> None:
    """Two runs of one name in two places have one default folder."""
    monkeypatch.setattr("pipeline.evaluate.__main__.score", lambda *_: pytest.fail("work began"))
    (tmp_path / "out").mkdir()
    scores = tmp_path / "out/scores.json"
    scores.write_text(json.dumps({"facts": {"checkpoint": "elsewhere/run/export"}}))
    assert main([str(checkpoint), *words(tmp_path, "--benchmarks", tsv, "--out", tmp_path / "out")]) == 2
    assert f"found the scores of elsewhere/run/export, expected those of {checkpoint} or none" in capsys.readouterr().err
    assert json.loads(scores.read_text())["facts"]["checkpoint"] == "elsewhere/run/export"


@pytest.mark.parametrize("content", ['{"facts": {"checkpoint": "run/export"}}', "{", "[]", '{"facts": {}}', None])
def test_its_own_folder_and_one_without_scores_are_free(tmp_path, monkeypatch, content) -> None:
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / "scores.json").write_text(content)
    _check_owner(tmp_path, "run/export")
    _check_owner(tmp_path, str(tmp_path / "run/export"))


def test_one_evaluation_at_a_time_in_a_folder(checkpoint, tsv, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(evaluation, "open_checkpoint", None)
    (out := tmp_path / "out").mkdir()
    with hold(out, out / ".lock", "evaluate"):
        assert main([str(checkpoint), *words(tmp_path, "--benchmarks", tsv, "--out", out)]) == 2
    said = capsys.readouterr().err
    assert f"error: {out}: another evaluate job is writing here (process " in said and "; wait for it, or name another --out" in said
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_what_workers_are_told_means_the_same_in_every_folder(checkpoint, mmeb, tmp_path, monkeypatch, capsys) -> None:
    """Image roots and the folder of the results; on a cluster a relative --out is refused."""
    told = []

    def refuse(checkpoint, encoder, sets, benchmarks, out, *others) -> None:
        told.append((sets, out))
        raise DataError("found enough")

    monkeypatch.setattr(main_module, "score", refuse)
    monkeypatch.chdir(tmp_path)
    command = [str(checkpoint), *words(tmp_path, "--mmeb", mmeb.name, "--image-root", f"{mmeb.name}/images")]
    assert main([*command, "--out", "out"]) == 2
    ((sets, out),) = told
    assert out == tmp_path / "out"
    assert {image.root for one in sets for row in one.rows for image in row.query.images} == {mmeb / "images"}
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    for place, named in ((["--out", "out"], "out"), ([], f"work/eval/{checkpoint.parent.name}")):
        assert main([*command, *place]) == 2
        assert f"error: --out {named}: found a relative path on a Ray cluster" in capsys.readouterr().err
    assert len(told) == 1


def test_a_hub_ids_weights_are_there_before_they_are_digested(checkpoint, encoder, tsv, tmp_path, monkeypatch) -> None:
    """The cache folder of a checkpoint of which only the small files have come; opening it brings the weights."""
    snapshot = tmp_path / "hub/models--our--small/snapshots/abc"
    shutil.copytree(checkpoint, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "hub/models--our--small/refs").mkdir()
    (tmp_path / "hub/models--our--small/refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    real = evaluation.open_checkpoint

    def bring(name: str, encoder):
        for weights in Path(checkpoint).glob("*.safetensors"):
            shutil.copy(weights, snapshot)
        return real(name, encoder)

    monkeypatch.setattr(evaluation, "open_checkpoint", bring)
    found = score("our/small", encoder, [], [load_benchmark(tsv)], tmp_path / "out", None, 2)
    assert found.answers == score(str(checkpoint), encoder, [], [load_benchmark(tsv)], tmp_path / "local", None, 2).answers
    names = [sorted(path.name for path in (tmp_path / out / "cache").glob("*/*")) for out in ("out", "local")]
    assert names[0] == names[1], "equal files, equal keys"
