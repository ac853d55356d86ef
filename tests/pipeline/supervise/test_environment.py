"""No secret reaches a command line of another machine: 50 planted, the command built by DeepSpeed's own code."""

import argparse
import re

import pytest

from data_prep.samples import DataError
from pipeline.supervise.environment import ACTIVE, EXPORTED, check_words, for_launcher

NAMES = [f"MLFLOW_{name}_{number}" for name in ("TRACKING_PASSWORD", "TRACKING_TOKEN", "X") for number in range(10)]
NAMES += [f"{start}_{name}" for start in ("PYTHON", "NCCL", "UCX", "MV2") for name in ("TOKEN", "API_KEY", "AUTH", "PASSWD", "SECRET")]
SECRETS = {name: f"canary-{name}" for name in NAMES}


def exported(env: dict[str, str]) -> str:
    """The command line that DeepSpeed's pdsh runner makes, with everything it passes on."""
    from deepspeed.launcher import runner
    from deepspeed.launcher.multinode_runner import PDSHRunner

    args = argparse.Namespace(
        user_args=[], user_script="launchers/train.sh", ssh_port=None, launcher_args="", master_addr="a", master_port=1, venv_script=None,
        no_python=False, module=False, no_local_rank=False, save_pid=False, enable_each_rank_log="None",
    )  # fmt: skip
    made = PDSHRunner(args, "world")
    for name, value in env.items():
        if name.startswith(tuple(runner.EXPORT_ENVS + runner.get_accelerator().export_envs() + ["NCCL"])):
            made.add_export(name, value)
    return " ".join(made.get_cmd(dict(env), {"worker-1": [0], "worker-2": [0]})[0])


def test_planted_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    env = {"PATH": "/usr/bin", "NCCL_DEBUG": "INFO", "PYTHONPATH": "/project", "HF_TOKEN": "stays here", **SECRETS}
    assert len(SECRETS) == 50 and exported(env).count("canary") == 50
    clean, left_out = for_launcher(env, several_machines=True)
    line = exported(clean)
    assert "canary" not in line and left_out == sorted(SECRETS)
    assert "NCCL_DEBUG=INFO" in line and "PYTHONPATH=/project" in line


def test_deepspeed_passes_on_what_we_think_it_does():
    from deepspeed.launcher import runner

    assert set(runner.EXPORT_ENVS) <= set(EXPORTED)


def test_one_machine_gets_all(tmp_path):
    assert for_launcher(SECRETS, several_machines=False) == (SECRETS, [])


@pytest.mark.parametrize("value", ["$(id)", "`id`", 'a"b', "a b", "a;b", "a\\b", "a|b", "a&b", "a\nb"])
def test_values_that_a_shell_would_run_are_refused(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="NCCL_NET: found a value with blanks or characters"):
        for_launcher({"NCCL_NET": value}, several_machines=True)
    with pytest.raises(DataError, match=re.escape(repr(value))):
        check_words(["tiny", "--out", value])


def test_plain_words_pass():
    words = ["crem_2b", "--data.shards", "/data/a-b_c.d,e", "--optim.learning-rate", "1e-05", "--track.uri", "https://host:5000/a%20b"]
    check_words(words)
    assert not any(ACTIVE.search(word) for word in words)


@pytest.mark.parametrize(("line", "said"), [("WANDB_API_KEY=x", "looks like a secret"), ("MLFLOW_X=1", "looks like"), ("x", "without =")])
def test_deepspeed_env_file(tmp_path, monkeypatch, line, said):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".deepspeed_env").write_text(f"NCCL_IB_DISABLE=1\n{line}\n")
    with pytest.raises(DataError, match=rf"\.deepspeed_env, line 2: found .*{said}"):
        for_launcher({}, several_machines=True)
    assert for_launcher({}, several_machines=False) == ({}, [])
