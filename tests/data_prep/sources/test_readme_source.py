"""The README's example of a source of one's own, put where it says, is found, checked and read."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[3]
READ = """
import json, sys
from data_prep.sources import discover, read
(part,) = discover(sys.argv[1])
samples = list(read(part, 0, part.rows))
print(json.dumps([[s.id, s.query.images[0].name, s.positive.text] for s in samples]))
"""


def test_one_file_is_enough(tmp_path, write_image):
    (example,) = re.findall(r"`captions\.py`.*?```python\n(.*?)```", (PROJECT / "README.md").read_text(), flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) < 20
    package = tmp_path / "project" / "data_prep"
    shutil.copytree(PROJECT / "data_prep", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "sources" / "captions.py").write_text(example)
    data = tmp_path / "data"
    for name in ("a.png", "b.png"):
        write_image(data / name)
    (data / "mine.captions.tsv").write_text("a.png\ta red square\nb.png\tanother\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "project")}

    def run(*command: str) -> str:
        return subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    assert json.loads(run("-c", READ, str(data))) == [
        ["captions/mine.captions.tsv/0", "a.png", "a red square"],
        ["captions/mine.captions.tsv/1", "b.png", "another"],
    ]
    assert "captions/mine.captions.tsv" in run("-m", "data_prep", "check", str(data), "--workers", "1")
