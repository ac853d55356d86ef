"""Verdicts against a real server: asked once, kept, tried again, given up, and counted."""

import json
from itertools import count
from pathlib import Path

import pytest

from data_prep.samples import DataError
from pipeline.evaluate import judge as module
from pipeline.evaluate.endpoint import Endpoint
from pipeline.evaluate.judge import Judge, Tally
from pipeline.evaluate.judge_prompts import Inquiry, grade, match_option, match_yes_no
from tests.pipeline.evaluate.judge_server import JudgeServer

OPTIONS = {"A": "a ring", "B": "a star"}


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr(module, "JOBS", 1)  # so that the order of questions can be counted on


def judge(server: JudgeServer, folder: Path, model: str = "wise", timeout: float = 5.0) -> Judge:
    return Judge(Endpoint(server.url, model, timeout=timeout), folder, backoff=0.001)


def inquiries(number: int) -> list[Inquiry]:
    return [match_option(f"question {i}", OPTIONS, "round") for i in range(number)]


def test_asked_once_and_never_again(tmp_path) -> None:
    with JudgeServer(lambda prompt: "B") as server:
        first = judge(server, tmp_path)
        assert first.verdicts([*inquiries(3), inquiries(1)[0]]) == ["B"] * 4
        assert (len(server.asked), first.tally) == (3, Tally(kept=0, answered=3))
        again = judge(server, tmp_path)
        assert again.verdicts(inquiries(3)) == ["B"] * 3
        assert (len(server.asked), again.tally) == (3, Tally(kept=3))
        assert judge(server, tmp_path, model="other").verdicts(inquiries(1)) == ["B"]
        assert len(server.asked) == 4, "another model's verdict is another verdict"


def test_a_torn_line_costs_one_question(tmp_path) -> None:
    with JudgeServer(lambda prompt: "B") as server:
        judge(server, tmp_path).verdicts(inquiries(2))
        path = tmp_path / "verdicts.jsonl"
        path.write_bytes(path.read_bytes()[:-20])
        assert judge(server, tmp_path).verdicts(inquiries(2)) == ["B", "B"]
        assert len(server.asked) == 3
        assert judge(server, tmp_path).verdicts(inquiries(2)) == ["B", "B"]
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("inquiry", "temperatures"),
    [
        (match_option("which?", OPTIONS, "round"), [0.0, 0.0, 0.0]),
        (match_yes_no("is it?", "hm"), [0.0, 0.5, 1.0, 1.5, 2.0]),
        (grade("what?", "x", "y"), [0.0, 0.5, 1.0, 1.5, 2.0]),
    ],
)
def test_nonsense_is_tried_again_warmer_then_unread_and_not_asked_again(tmp_path, inquiry: Inquiry, temperatures: list[float]) -> None:
    with JudgeServer(lambda prompt: "as I said before, both of them are of course possible") as server:
        assert judge(server, tmp_path).verdicts([inquiry]) == [None]
        assert [content["temperature"] for content in server.asked] == temperatures
        assert judge(server, tmp_path).verdicts([inquiry]) == [None]
        assert len(server.asked) == len(temperatures)


def test_the_first_readable_reply_counts(tmp_path) -> None:
    replies = iter(["what?", "", "0.7"])
    with JudgeServer(lambda prompt: next(replies)) as server:
        assert judge(server, tmp_path).verdicts([grade("what?", "x", "y")]) == [0.7]


def test_passing_failures_are_waited_out(tmp_path) -> None:
    numbers = count()
    with JudgeServer(lambda prompt: "A" if next(numbers) == 3 else 500) as server:
        found = judge(server, tmp_path)
        assert found.verdicts(inquiries(1)) == ["A"]
    assert (len(server.asked), found.tally.failed) == (4, 0)


@pytest.mark.parametrize(("answer", "requests"), [(500, 4), (400, 1), (b"broken", 4)])
def test_failures_stay_unread_are_counted_and_asked_again_later(tmp_path, answer: int | bytes, requests: int) -> None:
    replies = {"question 1": answer}
    with JudgeServer(lambda prompt: next((reply for name, reply in replies.items() if name in prompt), "B")) as server:
        found = judge(server, tmp_path)
        assert found.verdicts(inquiries(3)) == ["B", None, "B"]
        assert (found.tally.answered, found.tally.failed, len(server.asked)) == (2, 1, 2 + requests)
        assert "1 without an answer (the first: " in found.in_words()
        replies.clear()
        assert judge(server, tmp_path).verdicts(inquiries(3)) == ["B", "B", "B"]
        assert len(server.asked) == 3 + requests


def test_timeouts_stay_unread(tmp_path) -> None:
    with JudgeServer(lambda prompt: "B", slow=0.5) as server:
        found = judge(server, tmp_path, timeout=0.05)
        assert found.verdicts(inquiries(1)) == [None]
    assert found.tally.failed == 1 and "timed out" in found.tally.first_failure


def test_a_judge_that_stopped_answering_is_given_up(tmp_path) -> None:
    with JudgeServer(lambda prompt: 400) as server:
        found = judge(server, tmp_path)
        assert found.verdicts(inquiries(20)) == [None] * 20
    assert (len(server.asked), found.tally.failed) == (8, 20)
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_a_sign_of_life_is_asked_for_once(tmp_path) -> None:
    with JudgeServer(lambda prompt: "ready") as server:
        judge(server, tmp_path).check()
        judge(server, tmp_path).check()
    assert server.prompts == ["Reply with the word ready."]


def test_no_sign_of_life_is_an_error(tmp_path) -> None:
    message = r"found no answer of wise: HTTP 401 .*or leave --judge out: .*MMVet is not scored"
    with JudgeServer(lambda prompt: "B", key="another") as server, pytest.raises(DataError, match=message):
        judge(server, tmp_path).check()
    with pytest.raises(DataError, match="refused"):
        judge(server, tmp_path).check()


def test_verdicts_are_kept_by_digest_alone(tmp_path) -> None:
    with JudgeServer(lambda prompt: "B") as server:
        judge(server, tmp_path).verdicts(inquiries(1))
    (line,) = (tmp_path / "verdicts.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert (sorted(row), len(row["key"]), row["reply"]) == (["key", "reply"], 64, "B")
