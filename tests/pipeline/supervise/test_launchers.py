"""The launch files for schedulers: read by their own rules, and the Slurm script run with stand-ins for Slurm's commands."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.supervise.__main__ import JOB_ID, main
from pipeline.supervise.command import check

ROOT = Path(__file__).resolve().parents[3]
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") printf 'node-1\\nnode-2\\n';;
    "requeue 4242") echo requeued >> requeued;;
esac
"""
SRUN = """#!/bin/bash
[ "$1" = --kill-on-bad-exit=0 ] && shift
highest=0
for node in 0 1; do SLURM_NODEID=$node "$@"; status=$?; [ $status -gt $highest ] && highest=$status; done
exit $highest
"""
SUPERVISE = """#!/bin/bash
printf '%s\\n' "$*" >> words
exit "$(cat status)"
"""
"""Stands where the supervisor's launcher does: notes its words."""


@pytest.fixture
def slurm(tmp_path):
    """Runs the script on two nodes whose supervisors end with a status; gives its exit status."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "launchers").mkdir()
    files = {"bin/scontrol": SCONTROL, "bin/srun": SRUN, "launchers/supervise.sh": SUPERVISE}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    shutil.copy(ROOT / "launchers/slurm.sbatch", tmp_path / "launchers")

    def run(status: int, *words: str) -> int:
        (tmp_path / "status").write_text(str(status))
        env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "4242"}
        env |= {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_GPUS_ON_NODE": "4"}
        return subprocess.run(["bash", "launchers/slurm.sbatch", *words], cwd=tmp_path, env=env, timeout=60).returncode

    return run


def test_slurm_starts_a_supervisor_on_every_node(slurm, tmp_path):
    assert slurm(0, "crem_2b", "--out", "/shared/a run") == 0
    assert (tmp_path / "work/slurm/hosts-4242").read_text() == "node-1 slots=4\nnode-2 slots=4\n"
    lines = (tmp_path / "words").read_text().splitlines()
    start = "--job-id slurm-4242-0 --resume-if-any --grace-seconds 150 deepspeed --hostfile work/slurm/hosts-4242 --no_ssh --node_rank"
    end = "--master_addr node-1 --master_port 24242 launchers/train.sh crem_2b --out /shared/a run"
    assert lines == [f"{start} 0 {end}", f"{start} 1 {end}"]
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(("status", "again"), [(4, True), (0, False), (2, False), (5, False)])
def test_slurm_goes_on_after_a_preemption_only(slurm, tmp_path, status, again):
    assert slurm(status) == status
    assert (tmp_path / "requeued").exists() == again


def test_slurm_words_are_a_launch(slurm, tmp_path, monkeypatch):
    """What the script says is what the supervisor takes: eight ranks on two nodes, one of them here."""
    slurm(0, "tiny")
    monkeypatch.chdir(tmp_path)
    words = (tmp_path / "words").read_text().splitlines()[1].split()
    launch = check(words[words.index("deepspeed") :])
    assert launch.config.ranks is None and launch.trainer == ("tiny", "--ranks", "8") and launch.one_of_several
    assert JOB_ID.fullmatch(words[1])


def test_slurm_signals_the_tasks():
    text = (ROOT / "launchers/slurm.sbatch").read_text()
    assert "#SBATCH --signal=TERM@180\n" in text and "#SBATCH --requeue\n" in text


def test_kubernetes_manifest():
    service, job = yaml.safe_load_all((ROOT / "launchers/kubernetes.yaml").read_text())
    assert (service["kind"], service["spec"]["clusterIP"], job["kind"]) == ("Service", "None", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 2
    assert pod["subdomain"] == service["metadata"]["name"] == job["metadata"]["name"] == service["spec"]["selector"]["job-name"]
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "launchers/supervise.sh"]
    args = container["args"]
    grace = int(next(word for word in args if word.startswith("--grace-seconds=")).partition("=")[2])
    assert grace < pod["terminationGracePeriodSeconds"]
    launch = check(args[args.index("torchrun") :])
    assert launch.one_of_several and launch.trainer[-2:] == ("--ranks", "16")
    assert not any("secretKeyRef" in str(entry) or "value" in entry for entry in container["env"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("torchrun --nnodes 2 --nproc-per-node 1 launchers/train.sh tiny", "expected --job-id, the same on all"),
        (
            "--job-id x --restarts 2 torchrun --nnodes 2 --nproc-per-node 1 launchers/train.sh tiny",
            "found --restarts with a launcher on every",
        ),
        ("--job-id ../x deepspeed launchers/train.sh tiny", "--job-id: found '../x'"),
        ("deepspeed --hostfile nowhere launchers/train.sh tiny", "hostfile nowhere: found no readable file"),
        ("", "expected a launcher and its script"),
    ],
)
def test_faults_end_with_2_before_anything_starts(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["--restarts -1", "--hang-minutes nan", "--restart 3", "--grace-seconds x"])
def test_wrong_options_end_with_2(words):
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "deepspeed", "launchers/train.sh"])
    assert ended.value.code == 2
