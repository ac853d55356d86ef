"""The command as a person types it: what it refuses before anything starts."""

from pathlib import Path

import pytest

from data_prep.__main__ import main
from data_prep.synthesize.cli import summary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "--temperature -1.0: Input should be greater than or equal to 0"),
        (["--max-answer-chars", "0"], "--max-answer-chars 0: Input should be greater than 0"),
        (["--chunk", "0"], "--chunk 0: Input should be greater than 0"),
        (["--prompts", "none.toml"], "none.toml: found no readable prompt file"),
        (["--checkpoint", "nowhere/none"], "nowhere/none: found no checkpoint there"),
        (["--split", "other"], "expected 'other' as well; name another --split"),
        (["--engine", "vllm"], "--engine vllm: found no vllm in this environment"),
    ],
)
def test_bad_input_ends_with_a_message(
    options: list[str], message: str, corpus: Path, base_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["synthesize", str(corpus), "--checkpoint", str(base_checkpoint), "--out", str(tmp_path / "own.jsonl"), *options]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_report_in_words() -> None:
    report = {"rows": 4, "turns": 8, "kept": 6, "label_leaks": 1, "dropped": {"duplicate": 2, "row: no_image": 1}}
    assert summary(report).splitlines() == [
        "4 rows, 8 questions, 6 kept (75.0%), 1 spell the label",
        "  dropped, duplicate: 2",
        "  dropped, row: no_image: 1",
    ]
