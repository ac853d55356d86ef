"""Bad input is refused before any work starts, with a message that says found / expected / what to do."""

import json
import shutil

import pytest

from pipeline.ports import free_port
from pipeline.train.__main__ import main


@pytest.fixture
def train(shards, checkpoint, tmp_path, monkeypatch, capsys):
    """Run the trainer of a single rank in this process up to its refusal; returns status and message."""
    variables = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, **changes) -> tuple[int, str]:
        options = {"--model.checkpoint": checkpoint, "--data.shards": shards, "--out": tmp_path / "run"} | changes
        status = main(["tiny", *(str(w) for pair in options.items() for w in pair), *words])
        return status, capsys.readouterr().err

    return run


def test_no_shards(train, tmp_path):
    status, message = train(**{"--data.shards": tmp_path / "nowhere"})
    assert status == 2 and "found no manifest.json" in message and "launchers/prepare.sh" in message


def test_checkpoint_without_chorus(train, base_checkpoint):
    status, message = train(**{"--model.checkpoint": base_checkpoint})
    assert status == 2 and "without chorus tokens" in message and "pipeline.model chorus" in message


def test_more_chorus_tokens_than_the_checkpoint_has(train, tmp_path):
    status, message = train("--chorus.elastic", "2", "4", "8")
    assert status == 2 and not (tmp_path / "run").exists()
    assert "chorus.elastic: k = 8: found a checkpoint of 4 chorus tokens; expected 1 to 4" in message


def test_checkpoint_of_another_family(train, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "vision_config": {}}))
    status, message = train(**{"--model.checkpoint": tmp_path})
    assert status == 2 and "model_type 'llava'" in message and "qwen2_vl, qwen2_5_vl, qwen3_vl" in message


def test_no_checkpoint_folder(train, tmp_path):
    status, message = train(**{"--model.checkpoint": tmp_path / "nowhere"})
    assert status == 2 and "found no checkpoint" in message


def test_shards_of_another_tokenizer(train, shards, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["fingerprint"]["encoder"]["tokenizer"] = "0" * 16
    (copy / "manifest.json").write_text(json.dumps(manifest))
    status, message = train(**{"--data.shards": copy})
    assert status == 2 and "made for another checkpoint" in message and "tokenizer" in message


def test_altered_shard(train, shards, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    victim = next(copy.glob("*.arrow"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    status, message = train(**{"--data.shards": copy})
    assert status == 2 and victim.name in message and "other bytes" in message


def test_resume_without_a_checkpoint_is_no_fresh_start(train, tmp_path):
    status, message = train("--resume")
    assert status == 2 and "found no checkpoint" in message and not (tmp_path / "run").exists()


def test_deepspeed_config_that_states_what_the_run_owns(train, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}, "gradient_clipping": 5.0}))
    status, message = train(**{"--deepspeed": path})
    assert status == 2 and "gradient_clipping" in message and "optim.clip" in message


def test_deepspeed_config_with_a_misspelt_key(train, tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimisation": {"stage": 3}}))
    status, message = train(**{"--deepspeed": path})
    assert status == 2 and "zero_optimisation" in message and "zero_optimization" in message


def test_fewer_ranks_than_expected(train, tmp_path, monkeypatch):
    """As where deepspeed finds no hostfile: one node, and only a warning."""
    status, message = train(**{"--ranks": 16})
    assert status == 2 and "found 1 ranks, expected 16 (--ranks); nothing was started" in message and "--hostfile" in message
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    status, message = train(**{"--ranks": 16})
    assert status == 2 and message.startswith("error (rank 1): found 2 ranks, expected 16")
    assert not (tmp_path / "run").exists()


def test_pairs_that_leave_sub_batches_broken(train):
    with pytest.raises((SystemExit, ValueError), match=r"sub_batch|2"):
        train(**{"--batch.pairs": 10, "--batch.sub-batch": 4})
