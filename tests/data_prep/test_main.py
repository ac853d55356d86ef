"""The commands as a person types them, and the same job submitted to a Ray cluster."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.__main__ import main
from data_prep.cluster import cluster
from data_prep.shards import load_manifest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(corpus: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, prepared by the command; one Ray worker."""
    out = tmp_path_factory.mktemp("prepared") / "shards"
    with cluster(1):
        assert main(["prepare", str(corpus), "--checkpoint", str(checkpoint), "--out", str(out), "--rows-per-shard", "8"]) == 0
    return out


def test_prepare_then_look(prepared: Path, checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(prepared)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["mmeb_train/Colours", "3", "20"], ["sharegpt4v/chats", "2", "10"]]
    assert lines[3] == f"30 rows in {prepared}, manifest {load_manifest(prepared).digest()[:16]}"
    assert main(["inspect", str(prepared), "--row", "21", "--checkpoint", str(checkpoint)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"query: {len(_row(prepared, 21)['query']['ids'])} tokens, images [0]",
        r"  CONTEXT  '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        r"<|vision_start|><|image_pad|><|image_pad|><|image_pad|><|image_pad|><|vision_end|>Represent the given image.'",
        "  CHORUS   '<|chorus_0|><|chorus_1|><|chorus_2|><|chorus_3|>'",
        r"  PROMPT   'what?<|im_end|>\n<|im_start|>assistant\n'",
        "  ANSWER   'ring 1<|im_end|>'",
    ]


def _row(folder: Path, number: int) -> dict:
    shards = load_manifest(folder).shards
    return pa.concat_tables(pa.ipc.open_file(str(folder / s.name)).read_all() for s in shards).slice(number, 1).to_pylist()[0]


def test_a_row_without_tokenizer_shows_counts(prepared: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(prepared), "--row", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row 0  id mmeb_train/Colours/original/0  source mmeb_train/Colours"
    assert lines[1].startswith("  image 0: 56 x 56 pixels, ")
    assert lines.count("  CHORUS   4 tokens") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "30"], "error: row 30: expected 0 to 29"),
        (["--row", "-1"], "error: row -1: expected 0 to 29"),
        (["--row", "0", "--checkpoint", "no/where"], "error: no/where: found no checkpoint there; expected a folder"),
    ],
)
def test_rows_that_cannot_be_shown(prepared: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str) -> None:
    assert main(["inspect", str(prepared), *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_damaged_shard_is_not_shown(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for path in prepared.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert main(["inspect", str(tmp_path), "--row", "0"]) == 2
    assert "0000-mmeb_train.Colours-000000.arrow: missing or damaged; prepare the data again" in capsys.readouterr().err


@contextmanager
def rights_of_nobody() -> Iterator[None]:
    """Root may read everything, so it has to be somebody else meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("closed", [".", "manifest.json"])
def test_what_may_not_be_read_is_said(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture, closed: str) -> None:
    folder = tmp_path / "shards"
    copytree(prepared, folder)
    (folder / closed).chmod(0)
    with rights_of_nobody():
        said = refused(capsys, "inspect", folder)
    (folder / closed).chmod(0o755)
    assert said == (
        f"error: {folder / 'manifest.json'}: found no permission to use it (Permission denied); expected data that can be read and an "
        "output folder that can be written to. Change its owner or mode, or name another\n"
    )


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    return said.err


def test_what_cannot_be_prepared(
    checkpoint: Path, base_checkpoint: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "shards"
    to = ("--checkpoint", checkpoint, "--out", out)
    missing = refused(capsys, "prepare", tmp_path / "none", *to)
    assert f"{tmp_path / 'none'}: found no folder there; expected one with training data" in missing
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: no training data recognised" in refused(capsys, "prepare", tmp_path / "empty", *to)
    (tmp_path / "wrong" / "Set").mkdir(parents=True)
    pq.write_table(pa.table({"query": ["a"], "answer": ["b"]}), tmp_path / "wrong" / "Set" / "original-00000-of-00001.parquet")
    wrong = refused(capsys, "prepare", tmp_path / "wrong", *to)
    assert "wrong columns: found query, answer; missing qry, qry_image_path, pos_text, pos_image_path" in wrong
    (tmp_path / "no_rows" / "Set").mkdir(parents=True)
    columns = pa.table({name: pa.array([], pa.string()) for name in ("qry", "qry_image_path", "pos_text", "pos_image_path")})
    pq.write_table(columns, tmp_path / "no_rows" / "Set" / "original-00000-of-00001.parquet")
    assert "found 0 rows, expected at least one" in refused(capsys, "prepare", tmp_path / "no_rows", *to)
    unfit = refused(capsys, "prepare", corpus, "--checkpoint", base_checkpoint, "--out", out)
    assert "found a checkpoint without chorus tokens" in unfit
    assert not out.exists()


def test_impossible_options_are_named(corpus: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ("prepare", corpus, "--checkpoint", checkpoint, "--out", tmp_path / "shards")
    assert refused(capsys, *command, "--rows-per-shard", 0) == "error: --rows-per-shard 0: Input should be greater than 0\n"
    assert refused(capsys, *command, "--max-pixels", -5).startswith("error: --max-pixels -5: ")
    assert refused(capsys, *command, "--max-reject-share", 1.5).startswith("error: --max-reject-share 1.5: ")


def test_a_folder_that_holds_no_shards(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "found no manifest.json; expected a folder of finished shards" in (said := refused(capsys, "inspect", tmp_path))
    assert said.endswith(f"--out {tmp_path}\n")
    (tmp_path / "captions.json").touch()  # shards would go into the raw data
    assert refused(capsys, "inspect", tmp_path).endswith("--checkpoint CHECKPOINT --out SHARDS\n")


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of a Ray cluster on loopback, started as an operator starts one; with token authentication."""
    with socket.socket() as gcs, socket.socket() as dashboard:
        for free in (gcs, dashboard):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (gcs, dashboard)]
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    start = ["ray", "start", "--head", "--block", "--num-cpus", "2", "--port", str(ports[0]), "--node-ip-address", "127.0.0.1"]
    start += ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports[1])]
    with TemporaryDirectory() as short:  # Ray's sockets lie there, and a socket's path may have 107 characters
        start += ["--temp-dir", short, "--disable-usage-stats"]
        with subprocess.Popen(start, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ray_head:
            try:
                yield environment | {"RAY_ADDRESS": f"http://127.0.0.1:{ports[1]}"}
            finally:
                ray_head.terminate()


@pytest.mark.slow
def test_submitted_to_a_cluster_it_makes_the_same_data(
    head: dict[str, str], prepared: Path, corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    prepare = ["python", "-m", "data_prep", "prepare", str(corpus), "--checkpoint", str(checkpoint), "--rows-per-shard", "8"]
    submit = ["ray", "job", "submit", "--working-dir", str(PROJECT), "--"]
    end = time.monotonic() + 90
    while subprocess.run(["ray", "job", "list"], cwd=tmp_path, env=head, capture_output=True).returncode and time.monotonic() < end:
        time.sleep(0.5)
    done = subprocess.run([*submit, *prepare, "--out", str(out)], cwd=tmp_path, env=head, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_manifest(out) == load_manifest(prepared)
    assert (out / "manifest.json").read_bytes() == (prepared / "manifest.json").read_bytes()
    relative = subprocess.run([*submit, *prepare, "--out", "shards"], cwd=tmp_path, env=head, capture_output=True, text=True)
    assert relative.returncode != 0
    assert "found a relative path on a Ray cluster" in relative.stdout + relative.stderr
    stranger = head | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
    (tmp_path / "other").write_text("f" * 64)
    refused = subprocess.run([*submit, "true"], cwd=tmp_path, env=stranger, capture_output=True, text=True)
    assert refused.returncode != 0
