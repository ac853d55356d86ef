"""The command and its processes: every fault is counted, shown and explained; exit codes. `test_scan` compares it with the job."""

import json
from pathlib import Path

import pytest

from data_prep.__main__ import main
from data_prep.check import CheckSettings, as_json, check, exit_code, text
from data_prep.samples import DataError
from data_prep.sources import discover
from tests.data_prep.check.corpora import FILE, pair, talk, write_pairs


def test_without_checkpoint_lengths_are_bounded_and_all_else_is_the_same(bad: Path) -> None:
    one, two = (check(CheckSettings(roots=(bad,), workers=workers)) for workers in (1, 2))
    assert one == two
    found = one.found["mmeb_train/Bad"]
    assert (found.rows, found.images, found.opened, found.missing, found.unreadable, found.aside) == (10, 8, 8, 3, 3, 7)
    assert found.maybe_long == 1
    assert dict(one.found["sharegpt4v/bad"].reasons) == {"placeholder_count": 1, "text": 1}
    assert found.examples["missing"] == [
        f"mmeb_train/Bad/original/1: missing: 'images/lost.png': expected a file at {bad}/MMEB-train/images/lost.png, "
        "found: No such file or directory"
    ]


def test_nothing_wrong_is_exit_code_0(good: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(good), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["mmeb_train/Good", "3", "3", "3", "0", "0", "0"]
    assert lines[-3:] == [
        "A job over this would set aside none of 5 rows.",
        "",
        f"Next: bash launchers/prepare.sh {good} --checkpoint CHECKPOINT --out SHARDS",
    ]


def test_the_report_says_what_to_do(bad: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(bad), "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "mmeb_train/Bad: missing x 1 -> unpack the archive they come from, or name --image-root" in said
    assert "    mmeb_train/Bad/original/2: broken: 'images/cut.png': cannot be decoded" in said
    assert "A job would set aside 9 of 17 rows (52.94%); it stops above --max-reject-share (2 %)." in said
    assert "1 rows may be longer than --max-tokens; name --checkpoint" in said


def test_json_has_the_same_facts(bad: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(bad), "--workers", "1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["exit_code"], report["rows"], report["set_aside"]) == (1, 17, 9)
    assert report["sources"]["mmeb_train/Bad"]["reasons"]["not_a_file"] == 1


def test_rows_that_may_be_too_long_are_exit_code_3(good: Path) -> None:
    (good / "chats" / "talk.json").write_text(json.dumps([talk("", "x" * 300, "y" * 300)]))
    survey = check(CheckSettings(roots=(good / "chats",), workers=1, max_tokens=900))
    assert (survey.found["sharegpt4v/talk"].maybe_long, exit_code(survey)) == (1, 3)
    assert "1 rows may be longer than --max-tokens; name --checkpoint" in text(survey)


def test_a_sample_opens_some_and_looks_for_all(good: Path, picture_56: bytes) -> None:
    images = good / "MMEB-train" / "images"
    for number in range(20):
        (images / f"{number}.png").write_bytes(picture_56)
    write_pairs(good / "MMEB-train" / "Good" / FILE, [pair("q", f"images/{number}.png") for number in range(20)])
    survey = check(CheckSettings(roots=(good,), workers=1, sample=5))
    found = survey.found["mmeb_train/Good"]
    assert (found.rows, found.opened, found.unopened_rows, exit_code(survey)) == (20, 5, 15, 3)
    assert "15 rows were not opened (--sample)" in text(survey)
    (images / "3.png").unlink()  # not among those that are opened
    (images / "4.png").write_bytes(b"x")  # among them
    found = check(CheckSettings(roots=(good,), workers=1, sample=5)).found["mmeb_train/Good"]
    assert (found.missing, found.unreadable, found.aside) == (1, 1, 2)


def test_files_that_cannot_be_used_are_all_named(good: Path) -> None:
    write_pairs(good / "MMEB-train" / "Wrong" / FILE, [{"query": "q", "answer": "a"}])
    write_pairs(good / "MMEB-train" / "Unpacked" / FILE, [pair("q", "images/Unpacked/1.png"), pair("q", "images/Unpacked/2.png")])
    write_pairs(good / "MMEB-train" / "Old" / "train-00000-of-00001.parquet", [pair("q", "")])
    (good / "chats" / "cut.json").write_text('[{"conversations": [')
    survey = check(CheckSettings(roots=(good,), workers=1))
    reasons = {unusable.source: unusable.reason for unusable in survey.unusable}
    assert set(reasons) == {"mmeb_train/Wrong", "mmeb_train/Unpacked", "mmeb_train/Old", "sharegpt4v/cut"}
    assert "wrong columns: found query, answer; missing qry, qry_image_path" in reasons["mmeb_train/Wrong"]
    assert "'images/Unpacked/1.png' was not found" in reasons["mmeb_train/Unpacked"]
    assert ", and 1 others neither. Unpack the images there" in reasons["mmeb_train/Unpacked"]
    assert "split 'original' found in 3 subsets but not in Old" in reasons["mmeb_train/Old"]
    assert exit_code(survey) == 1
    assert survey.found["mmeb_train/Good"].rows == 3
    assert "4 files cannot be used; a job would stop at the first" in text(survey)
    assert [entry["source"] for entry in json.loads(as_json(survey))["unusable"]] == sorted(reasons)
    with pytest.raises(DataError):
        discover(good)


def test_evaluation_data_is_looked_at_as_well(good: Path, picture_56: bytes) -> None:
    row = {"qry_text": "q", "qry_img_path": "S/a.png", "tgt_text": ["yes", ""], "tgt_img_path": ["", "S/lost.png"]}
    write_pairs(good / "MMEB-eval" / "S" / "test-00000-of-00001.parquet", [row])
    (good / "MMEB-eval" / "eval_images" / "S").mkdir(parents=True)
    (good / "MMEB-eval" / "eval_images" / "S" / "a.png").write_bytes(picture_56)
    (good / "benchmarks").mkdir()
    (good / "benchmarks" / "B.tsv").write_text("index\tquestion\n1\tq\n")
    survey = check(CheckSettings(roots=(good,), workers=1))
    found = survey.evaluation["MMEB-eval/S"]
    assert (found.rows, found.images, found.missing, exit_code(survey)) == (1, 2, 1, 1)
    assert [(u.source, "missing answer, image or image_path" in u.reason) for u in survey.unusable] == [("B.tsv", True)]
    (good / "MMEB-eval" / "eval_images" / "S" / "lost.png").write_bytes(picture_56)
    assert exit_code(check(CheckSettings(roots=(good / "MMEB-eval", good / "chats"), workers=1))) == 0


def test_what_is_no_data_is_refused(tmp_path: Path, good: Path, capsys: pytest.CaptureFixture) -> None:
    for roots, message in [
        ([tmp_path / "no"], f"error: {tmp_path / 'no'}: found no folder there"),
        ([good, good], "found it twice among the folders given"),
        ([good / "MMEB-train" / "Good"], "no training data recognised"),
    ]:
        assert main(["check", *map(str, roots)]) == 2
        assert message in capsys.readouterr().err
    assert main(["check", str(good), "--sample", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --sample 0: ")


def test_a_folder_that_is_not_there_does_not_hide_behind_evaluation_data(good: Path) -> None:
    write_pairs(good / "MMEB-eval" / "Good" / "test-00000-of-00001.parquet", [pair("q", "")])
    with pytest.raises(DataError, match="nothere: found no folder there"):
        check(CheckSettings(roots=(good,), image_root=good / "nothere", workers=1))


def test_a_wrong_checkpoint_is_not_the_rows_fault(good: Path, base_checkpoint: Path) -> None:
    for checkpoint in (base_checkpoint, good / "none"):
        with pytest.raises(DataError, match=checkpoint.name):
            check(CheckSettings(roots=(good,), checkpoint=str(checkpoint), workers=1))
