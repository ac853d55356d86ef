"""ShareGPT4V / LLaVA / Qwen conversations: turns, markers, roles, and JSON that is large or damaged."""

from pathlib import Path

import pytest

from data_prep.samples import DataError, ImageRef, RawSample, Side, Turn
from data_prep.sources import discover, read, records


def talk(*values: str, roles=("human", "gpt"), **fields) -> dict:
    turns = [{"from": roles[number % 2], "value": value} for number, value in enumerate(values)]
    return {"id": "r", "conversations": turns, **fields}


OK = talk("<image>\nq", "a", image="a.png")


@pytest.fixture
def load(tmp_path, write_image, write_json):
    """Records of one file -> what is read from it; the images a.png and b.png exist."""
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)

    def run(*items: object, name: str = "caps.json") -> list:
        write_json(tmp_path / name, list(items))
        (part,) = discover(tmp_path)
        return list(read(part, 0, part.rows))

    return run


@pytest.mark.parametrize("name", ["caps.json", "caps.jsonl"])
def test_records_become_samples(load, tmp_path, name):
    one, two, none = load(
        talk("<image>\nWhat is it?", "A cat. ", "Sure?", "Yes.", image="a.png"),
        talk("Compare <image> with\n<image>", "Same.", image=["a.png", "b.png"], roles=("user", "assistant")),
        talk("Hi", "Hello."),
        name=name,
    )
    a, b = ImageRef("a.png", tmp_path), ImageRef("b.png", tmp_path)
    turns = (Turn("What is it?", "A cat."), Turn("Sure?", "Yes."))
    assert one == RawSample("sharegpt4v/caps/0", "sharegpt4v/caps", Side("", (a,)), turns)
    assert two.query == Side("", (a, b))
    assert two.turns == (Turn("Compare  with", "Same."),)
    assert none == RawSample("sharegpt4v/caps/2", "sharegpt4v/caps", Side(), (Turn("Hi", "Hello."),))


def test_marker_at_the_end_or_in_a_later_turn(load):
    end, later = load(
        talk("What?\n<image>", "a", image="a.png"), talk("Hi", "Hello", "And <image>?", "Cat", image="a.png")
    )
    assert end.turns == (Turn("What?", "a"),)
    assert later.turns == (Turn("Hi", "Hello"), Turn("And ?", "Cat"))


@pytest.mark.parametrize(
    "record, reason",
    [
        (talk("q", "a", image="a.png"), "placeholder_count: 0 <image> markers but 1 images"),
        (talk("<image>\nq", "a"), "placeholder_count: 1 <image> markers but 0 images"),
        (talk("<image><image>q", "a", image="a.png"), "placeholder_count: 2 <image> markers but 1 images"),
        (talk("<image>q", "see <image>", image="a.png"), "placeholder_count: answer 0 contains <image>"),
        (talk("<image>q", "a", "q", " \n", image="a.png"), "empty_answer: answer 1 is empty"),
        (talk("<image>\n", "a", image="a.png"), "empty_question: question 0 is empty"),
        (talk("a", "q", roles=("gpt", "human")), "roles: turn 0 is from 'gpt', expected 'human'"),
        (talk("q", "q", roles=("human", "human")), "roles: turn 1 is from 'human', expected 'gpt'"),
        (talk("q", "a", "q"), "roles: found 3 turns, expected every human turn to have an answer"),
        (
            talk("s", "q", roles=("system", "human")),
            "system_turn: turn 0 is a system message; the prompt template has its own",
        ),
        (talk("q", "a", roles=("human", "function")), "roles: turn 1 is from 'function', expected 'gpt'"),
        ({"conversations": []}, "conversations: found no list of turns"),
        ({"conversations": "hi"}, "conversations: found no list of turns"),
        ({"id": 1}, "conversations: found no list of turns"),
        ({"conversations": ["hi", "ho"]}, "roles: turn 0 is from None, expected 'human'"),
        (talk("q", 5), "conversations: turn 1 has no text value"),
        (talk("q", "a", image=7), "image: found int, expected a path or a list of paths"),
        (talk("<image>q", "a", image=["a.png", 7]), "image: found list, expected a path or a list of paths"),
        (talk("q", "a", video="a.mp4"), "video: found a video, expected images"),
        (["nested"], "json: found list, expected an object"),
        ("text, with [brackets}", "json: found str, expected an object"),
        (-7.5e3, "json: found float, expected an object"),
        (None, "json: found NoneType, expected an object"),
    ],
)
def test_unusable_records_are_rejected_in_their_place(load, record, reason):
    before, bad, after = load(OK, record, OK)
    assert (before.id, after.id) == ("sharegpt4v/caps/0", "sharegpt4v/caps/2")
    assert (bad.id, bad.source, bad.reason) == ("sharegpt4v/caps/1", "sharegpt4v/caps", reason)


def test_broken_line_spoils_only_itself(load, tmp_path, write_json):
    path = write_json(tmp_path / "caps.jsonl", [OK, OK])
    good = path.read_text().splitlines()[0]
    path.write_text(f'\ufeff{good}\n   \n{{"id": "cut", "conv\n{good}\n\n')
    (part,) = discover(tmp_path)
    first, bad, last = read(part, 0, 3)
    assert (first.id, last.id) == ("sharegpt4v/caps/0", "sharegpt4v/caps/2")
    assert bad.reason.startswith("json: ")


def test_array_items_are_found_whatever_stands_in_strings(load):
    odd = 'a "quoted\\" ]}{[ \\\\ brace } and \u4e2d\U0001f600 \n'
    results = load(
        *(talk("<image>" + odd + str(i), "[{" * i + "a", image="a.png", meta={"x": [[1], {}]}) for i in range(5))
    )
    assert [result.turns for result in results] == [(Turn(odd + str(i), "[{" * i + "a"),) for i in range(5)]


def test_slices_join_to_the_whole(load, tmp_path):
    whole = load(*(talk(f"<image>q{i}", "a", image="a.png", meta="x" * 9000) for i in range(20)))
    (part,) = discover(tmp_path)
    assert [sample.turns[0].question for sample in whole] == [f"q{i}" for i in range(20)]
    assert [sample for start in range(0, 20, 5) for sample in read(part, start, start + 5)] == whole
    with pytest.raises(ValueError, match=r"slice \[0, 21\) of 20 rows"):
        list(read(part, 0, 21))


def test_huge_record_is_rejected_unread(load, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 300)
    good, bad = load(OK, talk("<image>q", "a" * 400, image="a.png"))
    assert good.id == "sharegpt4v/caps/0"
    assert bad.reason.startswith("too_large: record of ") and bad.reason.endswith(" bytes, expected at most 300")


def test_deep_nesting_is_rejected(load, tmp_path):
    (tmp_path / "caps.json").write_text(
        '[{"conversations": [], "image": ""}, {"x": ' + "[" * 200000 + "]" * 200000 + "}]"
    )
    (part,) = discover(tmp_path)
    assert [result.reason.partition(":")[0] for result in read(part, 0, 2)] == ["conversations", "json"]


@pytest.mark.parametrize("cut", [1, 40, 3])
def test_cut_off_array_is_refused(tmp_path, write_json, cut):
    path = write_json(tmp_path / "caps.json", [talk("q", "a"), talk("q", "a")])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(
        DataError, match=r"caps\.json: found a JSON array without its closing bracket, expected a whole file"
    ):
        discover(tmp_path)


@pytest.mark.parametrize("name, content", [("caps.json", "[]"), ("caps.json", ""), ("caps.jsonl", "\n \n")])
def test_no_records(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}: found 0 rows, expected at least one record; download"):
        discover(tmp_path)


def test_records_without_conversations(tmp_path, write_json):
    write_json(tmp_path / "caps.json", [{"id": 1, "image": "a.png", "conversation": []}])
    with pytest.raises(
        DataError, match=r"caps.json: found keys conversation, id, image; missing conversations; expected"
    ):
        discover(tmp_path)


def test_jsonl_that_is_no_json(tmp_path):
    (tmp_path / "caps.jsonl").write_text("hello\nworld\n")
    with pytest.raises(DataError, match=r"caps\.jsonl: json: .*; expected one JSON object a line"):
        discover(tmp_path)


def test_other_json_files_are_left_alone(load, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"features": {}}')
    (tmp_path / "pretty.json").write_text('{\n "a": [\n  1\n ]\n}\n')
    (tmp_path / "numbers.json").write_text("[1, 2, 3]")
    (tmp_path / "._caps.json").write_bytes(b"\0\5\x16\7")
    assert len(load(OK)) == 1


def test_first_image_must_exist(load, tmp_path):
    with pytest.raises(DataError, match=f"its first image 'coco/1.png' was not found; tried {tmp_path}/coco/1.png"):
        load(talk("q", "a"), talk("<image>q", "a", image=["coco/1.png"]))


def test_image_root(tmp_path, write_image, write_json):
    write_image(tmp_path / "disk" / "coco" / "1.png")
    write_json(tmp_path / "data" / "caps.json", [talk("<image>q", "a", image="coco/1.png")])
    (part,) = discover(tmp_path / "data", image_root=tmp_path / "disk")
    assert part.root == Path(tmp_path / "disk")
