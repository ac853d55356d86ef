"""The trainer as users start it: `deepspeed launchers/train.sh`, its resume, and what it refuses before any work starts.

Real launches on two CPU ranks, ZeRO-3. The straight run and the interrupted one must agree bit for bit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.train.launch import RANKS_VARIABLE, main

ROOT = Path(__file__).resolve().parents[3]
STEPS = 4


def launch(command: list[str], shards: Path, checkpoint: Path, out: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a launcher with a small batch; its output as text."""
    options = {
        "--model.checkpoint": checkpoint,
        "--data.shards": shards,
        "--out": out,
        "--steps": STEPS,
        "--ranks": 2,
        "--save-every": 2,
        "--batch.pairs": 8,
        "--batch.sub-batch": 4,
        "--batch.conversations": 4,
        "--track.uri": f"sqlite:///{out.parent}/mlflow.db",
        "--track.artifacts": out.parent / "mlartifacts",
    }
    flat = [*(str(word) for pair in options.items() for word in pair), "--track.no-system-metrics"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    hidden = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CREM_CPU_RANKS", "CREM_RELAUNCHED")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PATH": path, **variables}
    return subprocess.run([*command, *flat, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


DEEPSPEED = ["deepspeed", "--num_gpus", "2", "--master_port", "29611", "launchers/train.sh", "tiny"]


@pytest.fixture(scope="module")
def straight(shards, checkpoint, tmp_path_factory):
    """As typed in the README, without naming ranks: the launcher starts one, which makes way for two."""
    out = tmp_path_factory.mktemp("straight") / "run"
    done = launch(["deepspeed", "launchers/train.sh", "tiny"], shards, checkpoint, out)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out, done.stdout


PARTS = [
    ["trained", "total"],
    ["vision", "75,168", "75,168"],
    ["language", "98,624", "98,624"],
    ["adapters", "0", "0"],
    ["chorus", "256", "256"],
]


def test_runs_two_ranks_as_typed(straight):
    out, output = straight
    assert "recipe tiny: 4 steps, 2 ranks, ZeRO stage 3" in output
    assert [line.split() for line in output.splitlines() if line.startswith("    ")][: len(PARTS)] == PARTS
    assert "\n  plan of 4 steps\n    source" in output
    assert "in-batch P@1" in output and "left 00:00:00" in output
    assert json.loads((out / "result.json").read_text())["steps"] == STEPS
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


LORA = ["--model.train", "lora", "--model.lora.dropout", "0.1", "--batch.row-tokens", "128", "--batch.chunk-tokens", "256"]
"""Adapters with dropout, in several chunks. (In the default suite: `test_lora`, without the launcher.)"""


@pytest.mark.parametrize("words", [[], pytest.param(LORA, marks=pytest.mark.slow)], ids=["full", "lora"])
def test_resume_is_bitwise_the_straight_run(request, shards, checkpoint, tmp_path, words):
    if words:
        reference = tmp_path / "reference"
        assert launch(DEEPSPEED, shards, checkpoint, reference, *words).returncode == 0
    else:
        reference = request.getfixturevalue("straight")[0]
    out = tmp_path / "run"
    first = launch(DEEPSPEED, shards, checkpoint, out, *words, "--stop-after", "2")
    assert first.returncode == 0, first.stderr[-3000:]
    assert not (out / "export").exists()
    second = launch(["bash", "launchers/train.sh", "tiny"], shards, checkpoint, out, *words, "--resume")
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    assert "resume at step 2 of 4" in second.stdout
    assert losses(out) == losses(reference)
    ours, expected = (load_file(run / "export" / "model.safetensors") for run in (out, reference))
    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in ours)


@pytest.mark.slow
def test_elastic_resume_is_bitwise_the_straight_run(shards, checkpoint, tmp_path):
    """k of a step is drawn from (seed, step): nothing to restore."""
    elastic = ("--chorus.elastic", "1", "2", "4")
    ends = [("straight", ()), ("resumed", ("--stop-after", "2")), ("resumed", ("--resume",))]
    for number, (name, words) in enumerate(ends):
        command = [*DEEPSPEED[:4], str(29621 + number), *DEEPSPEED[5:]]
        done = launch(command, shards, checkpoint, tmp_path / name, *elastic, *words)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    assert chorus(straight) == chorus(resumed) and len(set(chorus(straight))) > 1
    assert losses(straight) == losses(resumed)
    ours, reference = (load_file(run / "export" / "model.safetensors") for run in (resumed, straight))
    assert all(ours[name].equal(reference[name]) for name in ours)


@pytest.mark.slow
def test_a_learnt_temperature_is_resumed_and_recorded(shards, checkpoint, tmp_path):
    """Bit for bit over an interruption; the export holds it in crem.json and nowhere else."""
    learn = ("--loss.learn-temperature", "--loss.margin", "0.1")
    straight, broken = tmp_path / "straight" / "run", tmp_path / "broken" / "run"
    for out, words in ((straight, ()), (broken, ("--stop-after", "2")), (broken, ("--resume",))):
        done = launch(DEEPSPEED, shards, checkpoint, out, *learn, *words)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert losses(broken) == losses(straight)
    lines = [[json.loads(line)["metrics"] for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (straight, broken)]
    temperatures, resumed = ([metrics["temperature"] for metrics in run] for run in lines)
    assert resumed == temperatures and temperatures[0] == 0.05 and len(set(temperatures)) == STEPS
    found, expected = (json.loads((out / "export" / "crem.json").read_text())["temperature"] for out in (broken, straight))
    assert found == expected and 0.04 < found < 0.06 and found not in temperatures, "the one after the last step"
    ours, reference, before = (load_file(f / "model.safetensors") for f in (broken / "export", straight / "export", checkpoint))
    assert ours.keys() == reference.keys() == before.keys()
    assert all(ours[name].equal(reference[name]) for name in ours)


def test_export_opens_with_from_pretrained_and_has_moved(straight, checkpoint):
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    folder = straight[0] / "export"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    before = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert model.config.chorus_token_ids == before.config.chorus_token_ids
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|chorus_0|>") == model.config.chorus_token_ids[0]
    assert AutoImageProcessor.from_pretrained(folder).patch_size == 14
    moved = [not a.equal(b) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert all(moved)


def test_mlflow_holds_the_run(straight):
    from mlflow import MlflowClient

    out = straight[0]
    client = MlflowClient(f"sqlite:///{out.parent}/mlflow.db")
    run = client.get_run(json.loads((out / "result.json").read_text())["tracked_run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["batch.pairs"] == "8" and run.data.params["world_size"] == "2"
    assert run.data.params["parameters.chorus.trained"] == "256" and run.data.params["parameters.vision.total"] == "75168"
    names = {"loss/total", "loss/retrieval", "loss/generation", "accuracy/in_batch", "optim/learning_rate", "optim/grad_norm"}
    names |= {"speed/samples_per_s", "speed/tokens_per_s", "batch/padding_share", "memory/rank0_gib", "chorus_k"}
    assert names <= run.data.metrics.keys()
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss/total")] == [1, 2, 3, 4]
    assert {"config.json", "deepspeed.json", "data"} <= {item.path for item in client.list_artifacts(run.info.run_id)}


def chorus(out: Path) -> list[float]:
    """k of every step, as recorded."""
    return [json.loads(line)["metrics"]["chorus_k"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[tuple]:
    """(step, total, retrieval, generation) of every journal line, as written."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], *(line["metrics"][f"loss/{name}"] for name in ("total", "retrieval", "generation"))) for line in lines]


@pytest.mark.parametrize("said", ["abc", "0", "-1", "1.5", ""])
def test_a_wrong_number_of_cpu_ranks_is_refused(said: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv(RANKS_VARIABLE, said)
    assert main([]) == 2
    assert f"CREM_CPU_RANKS: found {said!r}; expected a number of ranks" in capsys.readouterr().err
