"""Fetching with the real client from a server on loopback: whole folders, interruptions, wrong and hostile files."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.fetch import FetchSettings, catalogue, fetch, run
from data_prep.fetch.catalogue import Corpus, WebFile
from data_prep.samples import DataError
from data_prep.sources import discover, read

PROJECT = Path(__file__).parents[3]
SUBSETS = ("ChartQA", "CIRR")
RECORDED = "fetched.json"


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (30, 30), colour).save(file, "PNG")
    return file.getvalue()


def parquet(subset: str, text: str) -> bytes:
    rows = [{"qry": f"<|image_1|>\n{text}\n", "qry_image_path": f"images/{subset}/Train/a.png", "pos_text": "yes", "pos_image_path": ""}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def images(subset: str, extra: dict[str, bytes] | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        content = {f"{subset}/Train/a.png": png("red"), f"__MACOSX/{subset}/._a.png": b"x", f"{subset}/Train/._a.png": b"x"}
        for name, data in {**content, **(extra or {})}.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.fixture
def mmeb(server, monkeypatch):
    """The server holds two subsets of MMEB-train in the Hub's layout, and the catalogue knows those two, at the server's commit."""
    files = {"README.md": b"# MMEB", "unzip_file.py": b"raise SystemExit"}
    for subset in SUBSETS:
        files |= {
            f"{subset}/{split}-00000-of-00001.parquet": parquet(subset, split) for split in ("original", "diverse_instruction", "train")
        }
        files[f"images_zip/{subset}.zip"] = images(subset)
    server.repositories["TIGER-Lab/MMEB-train"] = files
    entry = catalogue.CATALOGUE["mmeb-train"]
    source = entry.repositories[0].model_copy(update={"revision": None})
    monkeypatch.setitem(catalogue.CATALOGUE, "mmeb-train", entry.model_copy(update={"parts": SUBSETS, "repositories": (source,)}))
    return server


def get(tmp_path: Path, name: str = "mmeb-train", **more) -> Path:
    return fetch(FetchSettings(name=name, out=tmp_path / "data", **more), say=lambda _: None)


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WHOLE = {RECORDED} | {f"{s}/{split}-00000-of-00001.parquet" for s in SUBSETS for split in ("original", "diverse_instruction")}
WHOLE |= {f"images/{s}/Train/a.png" for s in SUBSETS}


def test_a_corpus_becomes_a_folder_that_the_job_reads(hub, mmeb, tmp_path):
    folder = get(tmp_path)
    assert folder == tmp_path / "data" / "MMEB-train"
    assert listed(folder) == WHOLE
    record = json.loads((folder / RECORDED).read_text())
    assert record["commits"] == {"TIGER-Lab/MMEB-train": hub.commit}
    assert record["asked"] == {"TIGER-Lab/MMEB-train": "main"}
    assert record["parts"] == ["CIRR", "ChartQA"]
    zipped = hub.repositories["TIGER-Lab/MMEB-train"]["images_zip/CIRR.zip"]
    assert record["files"]["images_zip/CIRR.zip"] == {
        "bytes": len(zipped),
        "sha256": hashlib.sha256(zipped).hexdigest(),
        "source": f"TIGER-Lab/MMEB-train@{hub.commit}",
        "into": "images",
        "files": 1,
        "unpacked_bytes": len(png("red")),
    }
    for split in ("original", "diverse_instruction"):
        parts = discover(tmp_path / "data", split=split)
        samples = [sample for part in parts for sample in read(part, 0, part.rows)]
        assert [(s.source, s.query.text) for s in samples] == [("mmeb_train/CIRR", split), ("mmeb_train/ChartQA", split)]
        assert all((image.root / image.name).is_file() for s in samples for image in s.query.images)


def test_what_is_there_is_not_fetched_again_even_without_network(hub, mmeb, tmp_path):
    folder = get(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    hub.repositories.clear()
    assert get(tmp_path) == folder
    assert get(tmp_path, revision=hub.commit) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_parts_can_be_added_later(hub, mmeb, tmp_path):
    folder = get(tmp_path, only=("CIRR",))
    assert listed(folder) == {name for name in WHOLE if "ChartQA" not in name}
    hub.sent.clear()
    assert get(tmp_path) == folder
    assert listed(folder) == WHOLE
    assert {path.split("/")[-1] for path in hub.sent if "CIRR" in path} == set()
    with pytest.raises(DataError, match="found VQA, which mmeb-train does not have; expected some of ChartQA, CIRR"):
        get(tmp_path, only=("VQA",))


def test_a_file_that_was_lost_is_fetched_again(hub, mmeb, tmp_path):
    folder = get(tmp_path, keep_archives=True)
    assert (folder / "images_zip" / "CIRR.zip").read_bytes() == hub.repositories["TIGER-Lab/MMEB-train"]["images_zip/CIRR.zip"]
    lost = folder / "CIRR" / "original-00000-of-00001.parquet"
    lost.unlink()
    hub.sent.clear()
    get(tmp_path)
    assert lost.is_file() and set(hub.sent) == {"CIRR/original-00000-of-00001.parquet"}


def test_main_that_moves_meanwhile_does_not_mix_two_commits(hub, mmeb, tmp_path):
    hub.replaced["images_zip/ChartQA.zip"] = b"another file"
    with pytest.raises(DataError):
        get(tmp_path)
    hub.replaced.clear()
    hub.commit, first = "d" * 40, hub.commit
    with pytest.raises(DataError, match=f"TIGER-Lab/MMEB-train at {first}: could not be downloaded .RevisionNotFoundError"):
        get(tmp_path)
    hub.commit = first
    assert json.loads((get(tmp_path) / RECORDED).read_text())["commits"] == {"TIGER-Lab/MMEB-train": first}


@pytest.mark.parametrize("path", ["images_zip/ChartQA.zip", "CIRR/original-00000-of-00001.parquet"])
@pytest.mark.parametrize("wrong", [b"<html>not found</html>", "same length"])
def test_a_wrong_digest_is_refused_and_the_file_removed(hub, mmeb, tmp_path, path, wrong):
    right = hub.repositories["TIGER-Lab/MMEB-train"][path]
    hub.replaced[path] = bytes(len(right)) if wrong == "same length" else wrong
    with pytest.raises(DataError, match=r"run the same command again"):
        get(tmp_path)
    assert not (tmp_path / "data" / "MMEB-train").exists()
    assert not (tmp_path / "data" / ".MMEB-train.partial" / path).exists()
    hub.replaced.clear()
    assert listed(get(tmp_path)) == WHOLE


def test_a_small_file_is_compared_with_its_git_digest(hub, tmp_path):
    name = "sharegpt4v_instruct_gpt4-vision_cap100k"
    hub.repositories["Lin-Chen/ShareGPT4V"] = {f"{name}.json": b'[{"id": 1}]'}
    hub.replaced[f"{name}.json"] = b'[{"id": 2}]'
    with pytest.raises(DataError, match=r"found 11 bytes with git [0-9a-f]{40}; expected 11 bytes with [0-9a-f]{40}"):
        get(tmp_path, "sharegpt4v", only=(name,), revision="main")
    hub.replaced.clear()
    assert listed(get(tmp_path, "sharegpt4v", only=(name,), revision="main")) == {RECORDED, f"{name}.json"}


def test_a_hostile_archive_leaves_nothing_and_names_the_member(hub, mmeb, tmp_path):
    hub.repositories["TIGER-Lab/MMEB-train"]["images_zip/ChartQA.zip"] = images("ChartQA", {"../../../out.png": b"x"})
    with pytest.raises(DataError, match=r"found the name '../../../out.png', which may lead outside"):
        get(tmp_path)
    assert not (tmp_path / "data" / "MMEB-train").exists()
    assert not list(tmp_path.rglob("out.png"))


def test_a_connection_that_drops_is_taken_up_where_it_broke(hub, mmeb, tmp_path):
    path = "images_zip/ChartQA.zip"
    data = images("ChartQA", {"ChartQA/big.bin": os.urandom(15 * 2**20)})  # the client writes pieces of 10 MiB
    hub.repositories["TIGER-Lab/MMEB-train"][path] = data
    hub.cut_after[path] = 12 * 2**20
    assert listed(get(tmp_path)) == WHOLE | {"images/ChartQA/big.bin"}
    assert hub.sent[path] == 12 * 2**20 + len(data) - 10 * 2**20


def test_killed_in_the_middle_it_goes_on(server, tmp_path):
    """Three real processes: one is killed while a file arrives, one is refused meanwhile, one finishes."""
    path = "sharegpt4v_instruct_gpt4-vision_cap100k.json"
    data = json.dumps([{"id": i, "conversations": []} for i in range(400_000)]).encode()
    server.repositories["Lin-Chen/ShareGPT4V"] = {path: data}
    server.stall_after[path] = 11_000_000
    command = [sys.executable, "-m", "data_prep", "fetch", "sharegpt4v", "--out", str(tmp_path), "--only", path.removesuffix(".json")]
    command += ["--revision", "main"]
    hidden = ("HF_HUB_OFFLINE",)
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {"HF_ENDPOINT": server.url}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(command, cwd=PROJECT, env=env, **quiet)
    try:
        partial = tmp_path / ".sharegpt4v.partial"
        end = time.monotonic() + 60
        while sum(p.stat().st_size for p in partial.rglob("*.incomplete")) < 10 * 2**20 and time.monotonic() < end:
            time.sleep(0.05)
        second = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)
        assert second.returncode == 2 and f"another fetch job is writing here (process {first.pid} " in second.stderr
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert not (tmp_path / "sharegpt4v").exists()
    server.stall_after.clear()
    server.sent.clear()
    third = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)
    assert third.returncode == 0, third.stderr
    assert (tmp_path / "sharegpt4v" / path).read_bytes() == data
    assert server.sent[path] == len(data) - 10 * 2**20
    assert "coco/train2017 (COCO 2017 train)" in third.stdout and "python -m data_prep check" in third.stdout


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "call"), [("from_hub", 1), ("from_hub", 4), ("unpack", 1), ("_move", 1), ("_store", 5), ("_finish", 0)])
def test_ended_at_any_step_nothing_half_made_is_seen_and_it_goes_on(hub, mmeb, tmp_path, monkeypatch, step, call, when):
    real, calls = getattr(run, step), []

    def ended(*arguments, **named):
        calls.append(step)
        if len(calls) <= call:
            return real(*arguments, **named)
        if when == "after":
            real(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, step, ended)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path)
    folder = tmp_path / "data" / "MMEB-train"
    assert len(calls) > call and folder.exists() == (step == "_finish" and when == "after")
    sent = sum(hub.sent.values())
    assert listed(get(tmp_path)) == WHOLE
    largest = max(len(data) for data in hub.repositories["TIGER-Lab/MMEB-train"].values())
    total = sum(stored["bytes"] for stored in json.loads((folder / RECORDED).read_text())["files"].values())
    assert sum(hub.sent.values()) <= total + largest and sent > 0
    assert not (tmp_path / "data" / ".MMEB-train.partial").exists()


def test_files_of_a_web_server(hub, monkeypatch, tmp_path):
    data = {"A.tsv": b"index\tanswer\n1\tx\n" * 1000, "B.tsv": b"index\n2\n"}
    hub.web |= data
    files = tuple(WebFile(part=n[0], url=f"{hub.url}/web/{n}", md5=hashlib.md5(d).hexdigest()) for n, d in data.items())
    entry = Corpus(name="tsv", folder="LMUData", about="two", parts=("A", "B"), web=files)
    monkeypatch.setitem(catalogue.CATALOGUE, "tsv", entry)
    partial = tmp_path / "data" / ".LMUData.partial"
    hub.replaced["B.tsv"] = b"another"
    with pytest.raises(DataError, match=r"B\.tsv: found 7 bytes with md5 [0-9a-f]{32}; expected [0-9a-f]{32}"):
        get(tmp_path, "tsv")
    assert (partial / "A.tsv").read_bytes() == data["A.tsv"] and not list(partial.glob("*B.tsv*"))
    hub.web.clear()
    with pytest.raises(DataError, match=rf"B\.tsv: could not be downloaded .*Or download it by other means, to {partial}/B\.tsv"):
        get(tmp_path, "tsv")
    (partial / "B.tsv").write_bytes(data["B.tsv"])
    assert listed(get(tmp_path, "tsv")) == {RECORDED, "A.tsv", "B.tsv"}
    with pytest.raises(DataError, match="comes from a web server, which has none"):
        get(tmp_path, "tsv", revision="main")


@pytest.mark.parametrize(("kept", "sent"), [(3000, 2000), (5000, 0)])
def test_part_of_a_file_of_a_web_server_is_completed(hub, monkeypatch, tmp_path, kept, sent):
    data = os.urandom(5000)
    hub.web["A.tsv"] = data
    entry = Corpus(
        name="tsv",
        folder="T",
        about="",
        parts=("A",),
        web=(WebFile(part="A", url=f"{hub.url}/web/A.tsv", md5=hashlib.md5(data).hexdigest()),),
    )
    monkeypatch.setitem(catalogue.CATALOGUE, "tsv", entry)
    (tmp_path / "data" / ".T.partial").mkdir(parents=True)
    (tmp_path / "data" / ".T.partial" / ".A.tsv.incomplete").write_bytes(data[:kept])
    assert (get(tmp_path, "tsv") / "A.tsv").read_bytes() == data
    assert hub.sent["A.tsv"] == sent


def test_what_cannot_be_fetched_says_why(hub, mmeb, tmp_path):
    with pytest.raises(DataError, match="found the name 'mmeb'; expected one of mmeb-train, mmeb-eval"):
        get(tmp_path, "mmeb")
    with pytest.raises(DataError, match=r"TIGER-Lab/MMEB-eval at 2f06.*could not be downloaded \(RepositoryNotFoundError"):
        get(tmp_path, "mmeb-eval")
    with pytest.raises(DataError, match=r"TIGER-Lab/MMEB-train at v9: could not be downloaded \(RevisionNotFoundError"):
        get(tmp_path, revision="v9")
    del hub.repositories["TIGER-Lab/MMEB-train"]["images_zip/CIRR.zip"]
    with pytest.raises(DataError, match=r"found no file images_zip/CIRR.zip among its 9 files; expected some. The repository's layout"):
        get(tmp_path)


def test_folders_of_others_are_left_alone(hub, mmeb, tmp_path):
    folder = tmp_path / "data" / "MMEB-train"
    folder.mkdir(parents=True)
    (folder / "mine.txt").touch()
    with pytest.raises(DataError, match=r"MMEB-train: found a folder without a readable fetched.json, so fetch did not make it"):
        get(tmp_path)
    (folder / "mine.txt").unlink()
    folder.rmdir()
    get(tmp_path)
    with pytest.raises(DataError, match=r"found mmeb-train of revision main .*; expected mmeb-train of revision v2\. Name another --out"):
        get(tmp_path, revision="v2")


def test_no_network_is_said(mmeb, tmp_path):
    with pytest.raises(DataError, match=r"could not be downloaded \(OfflineModeIsEnabled"):
        get(tmp_path)
