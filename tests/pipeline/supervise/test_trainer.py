"""The real trainer under the supervisor: through torchrun, and as two nodes on loopback through DeepSpeed's multi-node paths.

The nodes are 127.0.0.1 and localhost, one rank each. Their losses are those of one node with two ranks, bit for bit.
"""

import json
import os
import re
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from supervised import Supervised

from pipeline.ports import free_port

STEPS = 2
PDSH = """#!/usr/bin/env python3
# pdsh's part in DeepSpeed's launcher: the same command on every host, %n its number; here all hosts are this machine.
import subprocess, sys
words = sys.argv[1:]
hosts = words[words.index("-w") + 1].split(",")
line = " ".join(words[words.index("-w") + 2:])
open({log!r}, "a").write(line + "\\n")
if "pkill" in line:
    sys.exit(0)
ranks = [subprocess.Popen(["bash", "-c", line.replace("%n", str(n))]) for n in range(len(hosts))]
sys.exit(max(rank.wait() for rank in ranks))
"""


def words(shards: Path, checkpoint: Path, out: Path) -> tuple[str, ...]:
    """A small run."""
    options = {
        "--model.checkpoint": checkpoint, "--data.shards": shards, "--steps": STEPS, "--batch.pairs": 8, "--batch.sub-batch": 4,
        "--batch.conversations": 4, "--track.uri": f"sqlite:///{out.parent}/mlflow.db", "--track.artifacts": out.parent / "mlartifacts",
    }  # fmt: skip
    return (*(str(word) for pair in options.items() for word in pair), "--track.no-system-metrics")


def losses(out: Path) -> list[list[float]]:
    """Losses of every step, as written."""
    lines = [json.loads(line)["metrics"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [[line[f"loss/{name}"] for name in ("total", "retrieval", "generation")] for line in lines]


@pytest.fixture(scope="module")
def one_node(shards, checkpoint, tmp_path_factory) -> Path:
    """Two ranks on one node, by torchrun: the reference of this file."""
    out = tmp_path_factory.mktemp("one") / "run"
    launch = ("torchrun", "--nproc-per-node", "2", "--master-port", str(free_port()), "launchers/train.sh")
    with Supervised(out, None, (), launch, words(shards, checkpoint, out)) as job:
        code, output = job.end(300)
    assert code == 0 and "2 ranks, ZeRO stage 3" in output and f"step {STEPS}/{STEPS}" in output, output[-4000:]
    return out


@pytest.mark.slow
def test_torchrun(one_node):
    assert len(losses(one_node)) == STEPS and (one_node / "export" / "model.safetensors").is_file()
    (job,) = (one_node / "jobs").iterdir()
    assert json.loads((one_node / "result.json").read_text()) | {"tracked_run": None} == {
        "status": 0, "outcome": "done", "steps": STEPS, "job": job.name, "tracked_run": None,
    }  # fmt: skip
    ends = [json.loads(path.read_text()) for path in sorted(job.glob("rank-*"))]
    assert [(end["rank"], end["ended"], end["phase"]) for end in ends] == [(n, 0, "waiting for all ranks to finish") for n in range(2)]


@pytest.fixture
def hosts(tmp_path) -> str:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 slots=1\nlocalhost slots=1\n")
    return str(path)


@pytest.mark.slow
def test_two_nodes_with_a_supervisor_each(shards, checkpoint, tmp_path, hosts, one_node):
    """As under Slurm: DeepSpeed's --no_ssh."""
    out, port = tmp_path / "run", str(free_port())
    with ExitStack() as stack:
        launches = [
            ("deepspeed", "--hostfile", hosts, "--no_ssh", "--node_rank", node, "--master_addr", "127.0.0.1", "--master_port", port,
             "launchers/train.sh")
            for node in "01"
        ]  # fmt: skip
        options = ("--job-id", "both")
        jobs = [stack.enter_context(Supervised(out, None, options, launch, words(shards, checkpoint, out))) for launch in launches]
        ends = [job.end(400) for job in jobs]
    assert [code for code, _ in ends] == [0, 0], ends[0][1][-3000:] + ends[1][1][-3000:]
    assert "nnodes=2, num_local_procs=1, node_rank=1" in ends[1][1]
    assert losses(out) == losses(one_node)


@pytest.mark.slow
def test_two_nodes_through_pdsh(shards, checkpoint, tmp_path, hosts, one_node, monkeypatch):
    """DeepSpeed's ssh path, with a pdsh that runs on this machine; MLflow's password stays out of its command line."""
    log = tmp_path / "pdsh.log"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pdsh").write_text(PDSH.format(log=str(log)))
    (tmp_path / "bin" / "pdsh").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    out, port = tmp_path / "run", str(free_port())
    launch = ("deepspeed", "--hostfile", hosts, "--no_ssh_check", "--master_addr", "127.0.0.1", "--master_port", port, "launchers/train.sh")
    with Supervised(out, None, (), launch, words(shards, checkpoint, out)) as job:
        code, output = job.end(400)
    assert code == 0 and "not passed on" in output, output[-4000:]
    assert re.search(r"cmd = .*pdsh.* -w 127.0.0.1,localhost", output) and "canary" not in output + log.read_text()
    assert losses(out) == losses(one_node)
