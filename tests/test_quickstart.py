"""The quickstart really learns: its own scores, from its own files, against chance. Slow: bash launchers/test.sh -m slow."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> dict:
    work = tmp_path_factory.mktemp("quickstart") / "work"
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE")}
    command = ["bash", "launchers/quickstart.sh"]
    done = subprocess.run(command, cwd=ROOT, env=env | {"CREM_WORK": str(work)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((work / "eval" / "scores.json").read_text())


@pytest.mark.parametrize("name", ["ShapesI2T", "ShapesT2I"])
def test_retrieval_among_500(scores, name):
    row = next(row for row in scores["retrieval"] if row["name"] == name)
    assert row["candidates_mean"] == 500 and row["p_at_1"] >= 0.25


@pytest.mark.parametrize("meta", ["CLS", "VQA", "RET", "GD"])
def test_every_meta_task_in_distribution_is_three_times_chance(scores, meta):
    rows = [row for row in scores["retrieval"] if row["meta"] == meta and row["split"] == "IND"]
    assert min(row["candidates_mean"] for row in rows) >= 10
    assert sum(row["p_at_1"] for row in rows) >= 3 * sum(row["chance"] for row in rows)


def test_multiple_choice_native_and_compressed(scores):
    rows = {row["mode"]: row for row in scores["answers"] if row["kind"] == "multiple choice"}
    assert rows["native"]["score"] >= rows["native"]["chance"] + 0.20
    assert abs(rows["compressed"]["score"] - rows["native"]["score"]) <= 0.10
    assert rows["compressed"]["cache_share"] == pytest.approx(16 / 46, abs=0.02)  # 16 chorus tokens of a prefix of about 46
