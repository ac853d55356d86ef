"""The README's stage commands, run as they stand, one after the other, in a fresh copy of the project.

Only sizes are added (fewer rows, steps and pairs), so that the whole chain takes minutes; the words before them are the README's own.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
SMALL_RUN = "--steps 2 --batch.pairs 4 --batch.sub-batch 2 --batch.conversations 2 --track.no-system-metrics"
SMALLER = {
    "python -m data_prep.embedded": "--rows 8",
    "deepspeed": SMALL_RUN,
    "bash launchers/train.sh": SMALL_RUN,
}


def commands(section: str) -> list[str]:
    """The commands of the bash blocks under a heading, continuation lines joined."""
    text = (ROOT / "README.md").read_text()
    body = re.split(r"^## ", text.split(f"## {section}\n")[1], flags=re.MULTILINE)[0]
    blocks = re.findall(r"```bash\n(.*?)```", body, flags=re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the tracked files with the environment that runs this test."""
    folder = tmp_path_factory.mktemp("readme") / "crem"
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


def run(command: str, folder: Path) -> str:
    """Run one README command with its sizes made small; fails with its output."""
    more = next((words for start, words in SMALLER.items() if command.startswith(start)), "")
    done = subprocess.run(["bash", "-c", f"{command} {more}"], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command} {more}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def environment() -> dict[str, str]:
    """The user's shell after `source .venv/bin/activate`."""
    hidden = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CREM_CPU_RANKS", "RAY_ADDRESS", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return env | {"PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])}


def test_the_two_commands_are_there():
    assert commands("Two commands") == ["bash launchers/quickstart.sh", "bash launchers/test.sh"]
    assert all((ROOT / command.split()[1]).is_file() for command in commands("Two commands"))


def test_every_stage_as_shown(project):
    chain = commands("Each stage")
    assert [c.split()[0] for c in chain].count("deepspeed") == 3 and chain[-1] == "bash launchers/mlflow_ui.sh"
    output = {command: run(command, project) for command in chain[:-1]}
    assert any("2 ranks, ZeRO stage 3" in text for text in output.values())
    assert any("CHORUS" in text and "CONTEXT" in text for text in output.values())
    assert any("share of the KV cache" in text for text in output.values())
    exports = [project / f"work/mine/{name}/model.safetensors" for name in ("run/export", "averaged-run/export", "averaged-run/export-ema")]
    assert all(path.is_file() for path in exports) and exports[1].read_bytes() != exports[2].read_bytes()
    assert "step-00000002" in {path.name for path in (project / "work/mine/another-run/checkpoints").iterdir()}


def test_mlflow_ui_answers_on_loopback(project):
    """After the stages above, the store they wrote is served."""
    port = str(free_port())
    command = [*commands("Each stage")[-1].split(), port]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=project, env=environment(), start_new_session=True, **quiet)
    try:
        assert b"MLflow" in _page(f"http://127.0.0.1:{port}/", seconds=90)
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


def _page(address: str, seconds: float) -> bytes:
    limit = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).read()
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(1)
