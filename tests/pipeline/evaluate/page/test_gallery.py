"""What the galleries show is what the rule says, with the pictures that were scored."""

import pytest

from data_prep.samples import DataError
from pipeline.evaluate.page.gallery import EACH, OUTCOMES, answer_gallery, retrieval_gallery
from pipeline.evaluate.page.pictures import Pictures


def test_the_first_right_and_wrong_queries_set_by_set(written, make) -> None:
    begun = written().set(make.words("One", 6), [True, False, True, False, True, False])
    begun.set(make.words("Two", 3), [False, False, True]).set(make.words("Seen", 1, "vqa"), [True])
    shown = retrieval_gallery(begun.report(), begun.folder, [], Pictures())
    assert list(shown) == ["VQA", "RET"]
    assert [(one.set_name, one.row) for one in shown["RET"]] == [("One", 0), ("Two", 2), ("One", 2), ("One", 1), ("Two", 0), ("One", 3)]
    assert [one.right for one in shown["RET"]] == [True] * EACH + [False] * EACH
    right, wrong = shown["RET"][0], shown["RET"][3]
    assert [one.text for one in right.top] == [f"target 0 {i}" for i in range(5)] and right.missed is None
    assert [one.true for one in right.top] == [True, False, False, False, False]
    assert [one.text for one in wrong.top] == [f"target 1 {i}" for i in (6, 5, 4, 3, 2)]
    assert (wrong.missed.text, wrong.missed.true, wrong.true_rank, wrong.candidates) == ("target 1 0", True, 7, 7)
    assert wrong.missed.score == pytest.approx(0.1)


def test_pictures_come_from_the_data_scored(written, make, picture) -> None:
    eval_set = make.shown("Own", [picture(i) for i in range(4)])
    begun = written().set(eval_set, [True, True, False, False])
    with_data, without = (retrieval_gallery(begun.report(), begun.folder, sets, Pictures())["RET"] for sets in ([eval_set], []))
    assert all(shown.uri for one in with_data for side in (one.query, *one.top) for shown in side.pictures)
    assert {shown.problem for one in without for side in (one.query, *one.top) for shown in side.pictures} == {"picture not at hand"}
    assert with_data[0].query.pictures[0].name == picture(0).name
    with pytest.raises(DataError, match="Own, row 0: found other data than was scored"):
        retrieval_gallery(begun.report(), begun.folder, [make.shown("Own", [picture(9), picture(8)])], Pictures())
    with pytest.raises(DataError, match="Own, row 0: found other data than was scored"):
        retrieval_gallery(begun.report(), begun.folder, [make.shown("Own", [])], Pictures())


def test_an_instruction_that_all_candidates_share_is_said_once(written, make, picture) -> None:
    eval_set = make.shown("Own", [picture(i) for i in range(2)])
    for row in eval_set.rows:
        object.__setattr__(row, "candidates", tuple(type(side)("<|image_1|>\nRepresent it.", side.images) for side in row.candidates))
    begun = written().set(eval_set, [True, True]).set(make.words("Words", 1, "vqa"), [True])
    shown = retrieval_gallery(begun.report(), begun.folder, [eval_set], Pictures())
    assert (shown["RET"][0].shared, shown["VQA"][0].shared) == ("Represent it.", "")


def test_a_row_of_each_outcome(written, make, picture) -> None:
    benchmark = make.questions("Choice", "multiple_choice", [str(i) for i in range(8)], (picture(0),), answer="A")
    native, compressed = [1, 0, 1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 1, 1, 0, 0]
    begun = written().benchmark(benchmark, "native", native, "said natively").benchmark(benchmark, "compressed", compressed, "")
    begun.benchmark(make.questions("Native", "open", ["1"]), "native", [1])
    shown = answer_gallery(begun.report(), begun.folder, [benchmark], Pictures())
    assert list(shown) == ["Choice"], "what was answered in one mode alone is not set side by side"
    assert [(one.index, one.outcome) for one in shown["Choice"]] == list(zip("0341", OUTCOMES.values(), strict=True))
    assert shown["Choice"][1].modes == {"native": ("said natively", True), "compressed": ("", False)}
    assert shown["Choice"][1].options == {"A": "a ring", "B": "a star"} and shown["Choice"][1].pictures[0].uri
    other = make.questions("Choice", "multiple_choice", [str(i) for i in range(8)], (picture(1),), answer="A")
    with pytest.raises(DataError, match="Choice, index 0: found other data"):
        answer_gallery(begun.report(), begun.folder, [other], Pictures())


def test_predictions_of_another_version(written, make) -> None:
    begun = written().set(make.words("Own", 1), [True])
    path = begun.folder / "predictions/Own.jsonl"
    path.write_text('{"row": 0, "hit": true}\n')
    with pytest.raises(DataError, match="rows that do not say what they asked"):
        retrieval_gallery(begun.report(), begun.folder, [], Pictures())
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        retrieval_gallery(begun.report(), begun.folder, [], Pictures())
