"""MMEB-eval: candidates as stored, number 0 right; the 36 known sets; refusals with the row named."""

import json

import pytest

from data_prep.samples import DataError, ImageRef, Side
from data_prep.sources.mmeb_eval import load_sets

FILE = "test-00000-of-00001.parquet"


def ranking(text="<|image_1|>\nWhat?\n", image="S/q.png", texts=("a", "b"), paths=("", ""), **more) -> dict:
    return {"qry_text": text, "qry_img_path": image, "tgt_text": list(texts), "tgt_img_path": list(paths), **more}


@pytest.fixture
def root(tmp_path, write_image):
    write_image(tmp_path / "images" / "S" / "q.png")
    return tmp_path


def test_rows_become_queries_and_candidates(root, write_parquet):
    rows = [
        ranking(),
        ranking(texts=("b", "a", "a", ""), paths=("", "", "", "")),
        ranking("<|image_1|>\nFind: x\n", "", ("<|image_1|>\nSee.\n",), ("S/q.png",)),
    ]
    write_parquet(root / "ChartQA" / FILE, rows)
    (found,) = load_sets(root)
    picture = ImageRef("S/q.png", root / "images")
    assert (found.name, found.meta, found.split, len(found.rows)) == ("ChartQA", "vqa", "IND", 3)
    assert found.rows[0].query == Side("What?", (picture,))
    assert found.rows[0].candidates == (Side("a"), Side("b"))
    assert found.rows[1].candidates == (Side("b"), Side("a"), Side("a"), Side())
    assert found.rows[2].query == Side("Find: x")
    assert found.rows[2].candidates == (Side("See.", (picture,)),)
    assert found.rows[0].candidates[0] is found.rows[1].candidates[1]


def test_sets_are_sorted_and_clutter_is_ignored(root, write_parquet):
    for name in ("b", "a", "._c"):
        write_parquet(root / name / FILE, [ranking()])
    write_parquet(root / "a" / "test-00001-of-00002.parquet", [ranking("Second", "")])
    write_parquet(root / "a" / "train-00000-of-00001.parquet", [{"junk": 1}])
    first, second = load_sets(root)
    assert (first.name, second.name) == ("a", "b")
    assert [row.query.text for row in first.rows] == ["What?", "Second"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("ImageNet-1K", ("classification", "IND")),
        ("ImageNet_1K", ("classification", "IND")),
        ("MSCOCO", ("grounding", "IND")),
        ("MSCOCO_t2i", ("retrieval", "IND")),
        ("Visual7W", ("vqa", "IND")),
        ("Visual7W-Pointing", ("grounding", "OOD")),
        ("RefCOCO-Matching", ("grounding", "OOD")),
        ("MyOwn", (None, None)),
    ],
)
def test_meta_and_split_by_name(root, write_parquet, name, expected):
    write_parquet(root / name / FILE, [ranking()])
    (found,) = load_sets(root)
    assert (found.name, found.meta, found.split) == (name, *expected)


def test_tasks_file_classifies_own_sets_only(root, write_parquet):
    for name in ("MyOwn", "GQA"):
        write_parquet(root / name / FILE, [ranking()])
    task = {"meta": "grounding", "split": "OOD"}
    (root / "tasks.json").write_text(json.dumps({"MyOwn": task, "GQA": task}))
    gqa, own = load_sets(root)
    assert (gqa.meta, gqa.split) == ("vqa", "OOD")
    assert (own.meta, own.split) == ("grounding", "OOD")


@pytest.mark.parametrize(
    "content, message",
    [
        (
            '{"A": {"meta": "VQA", "split": "OOD"}}',
            "A: found meta 'VQA' and split 'OOD'; expected meta one of classification",
        ),
        ('{"A": {"meta": "vqa", "split": "dev"}}', "found meta 'vqa' and split 'dev'; .* split one of IND, OOD"),
        ('{"A": {"meta": "vqa"}}', "KeyError"),
        ('{"A": {"meta": ["vqa"], "split": "IND"}}', "found meta"),
        ('{"A": "vqa"}', "TypeError"),
        ("[]", "AttributeError"),
        ("{", "JSONDecodeError"),
    ],
)
def test_bad_tasks_file(root, write_parquet, content, message):
    write_parquet(root / "A" / FILE, [ranking()])
    (root / "tasks.json").write_text(content)
    with pytest.raises(DataError, match=rf"tasks\.json: .*{message}"):
        load_sets(root)


def test_instruction_columns_are_put_before_the_texts(root, write_parquet):
    spaced = ranking("cats", "", ("\nmore",), ("S/q.png",), qry_inst="Find:", tgt_inst="<|image_1|>\nRepresent the given image:")
    write_parquet(root / "A" / FILE, [ranking("cats", qry_inst="<|image_1|> Find:", tgt_inst="Represent: "), spaced])
    write_parquet(root / "B" / FILE, [ranking("cats", qry_inst="", paths=("S/q.png", ""), tgt_inst=["One", None])])
    a, b = load_sets(root)
    assert a.rows[0].query.text == "Find: cats"
    assert [side.text for side in a.rows[0].candidates] == ["a", "b"], "labels stay bare, as VLM2Vec-V2 leaves them"
    assert b.rows[0].query.text == "cats"
    assert [side.text for side in b.rows[0].candidates] == ["One a", "b"]
    assert a.rows[1].candidates[0].text == "Represent the given image:\nmore"


@pytest.mark.parametrize("place", ["images", ".", "eval_images"])
def test_image_folders(tmp_path, write_image, write_parquet, place):
    write_image(tmp_path / "r" / place / "S" / "q.png")
    write_parquet(tmp_path / "r" / "A" / FILE, [ranking()])
    (found,) = load_sets(tmp_path / "r")
    assert found.rows[0].query.images[0].root == tmp_path / "r" / place


def test_images_folder_comes_before_the_root(root, write_image, write_parquet):
    write_image(root / "S" / "q.png")
    write_parquet(root / "A" / FILE, [ranking()])
    assert load_sets(root)[0].rows[0].query.images[0].root == root / "images"


def test_image_root_comes_first(root, tmp_path_factory, write_image, write_parquet):
    elsewhere = tmp_path_factory.mktemp("disk")
    write_image(elsewhere / "S" / "q.png")
    write_parquet(root / "A" / FILE, [ranking()])
    assert load_sets(root, elsewhere)[0].rows[0].query.images[0].root == elsewhere


def test_first_image_may_be_a_candidate_and_must_exist(root, write_parquet):
    write_parquet(root / "A" / FILE, [ranking("q", "", paths=("", "")), ranking("q", "", paths=("", "S/no.png"))])
    with pytest.raises(DataError) as caught:
        load_sets(root)
    for folder in ("images/", "", "eval_images/"):
        assert f"{root}/{folder}S/no.png (missing)" in str(caught.value)


@pytest.mark.parametrize(
    "bad, message",
    [
        (ranking(texts=(), paths=()), "row 1: found an empty candidate list"),
        (ranking(texts=("a", "b", "c")), "row 1: found 3 tgt_text and 2 tgt_img_path; expected equal numbers"),
        (ranking(" ", ""), "row 1: found a query with neither text nor image"),
        (
            ranking(texts=("<|image_1|>", "b")),
            r"row 1: found a right candidate \(number 0\) with neither text nor image",
        ),
        (ranking(texts=("a",), paths=("",)) | {"tgt_text": None}, "row 1: found 0 tgt_text and 1 tgt_img_path"),
    ],
)
def test_unusable_rows_are_named(root, write_parquet, bad, message):
    write_parquet(root / "A" / FILE, [ranking(), bad])
    with pytest.raises(DataError, match=f"A/{FILE}, {message}"):
        load_sets(root)


def test_instructions_of_another_length(root, write_parquet):
    write_parquet(root / "A" / FILE, [ranking(tgt_inst=["x"])])
    with pytest.raises(DataError, match=r"row 0: found 1 tgt_inst for 2 tgt_text; expected equal numbers"):
        load_sets(root)


def test_wrong_columns(root, write_parquet):
    write_parquet(root / "A" / FILE, [{"qry_text": "q", "qry_image_path": "", "tgt_text": ["a"], "tgt_img_path": [""]}])
    with pytest.raises(
        DataError, match=r"found qry_text, qry_image_path, .*; missing qry_img_path; expected qry_text, qry_img"
    ):
        load_sets(root)
    write_parquet(root / "A" / FILE, [ranking() | {"tgt_text": "a"}])
    with pytest.raises(DataError, match=r"column tgt_text: found string; expected list of string"):
        load_sets(root)


def test_no_sets(tmp_path):
    with pytest.raises(DataError, match=r"no evaluation sets; looked for <Set>/test-\*\.parquet; found nothing"):
        load_sets(tmp_path)
    with pytest.raises(DataError, match=r"no: found no folder there"):
        load_sets(tmp_path / "no")


@pytest.mark.parametrize("name", ["video-tasks", "K700", "Video-MME", "visdoc-tasks", "ViDoRe_arxivqa", "VisRAG_SlideVQA", "ViDoSeek-doc"])
def test_video_and_document_tasks_are_not_scored_yet(root, write_parquet, name):
    write_parquet(root / "GQA" / FILE, [ranking()])
    (root / name).mkdir()
    with pytest.raises(DataError, match=rf"found {name}, a (video|document) task of MMEB-V2; .* not scored yet"):
        load_sets(root)


INSTRUCTIONS = {
    "ImageNet-A": ("<|image_1|>\nRepresent the given image for classification\n", "", ""),
    "Country211": ("<|image_1|>\nIdentify the country depicted in the image\n", "", ""),
    "ObjectNet": ("<|image_1|>\nIdentify the object shown in the image\n", "", ""),
    "Place365": ("<|image_1|>\nIdentify the scene shown in the image\n", "", ""),
    "GQA": ("<|image_1|>\nRepresent the given image with the following question: Is it?\n", "", ""),
    "VisDial": ("Represent the given dialogue about an image, which is used for image retrieval: Q:a\nA:b\n\n", "Represent it", "i"),
    "FashionIQ": ("<|image_1|>\nFind an image to match the fashion image and style note: red\n", "Represent the given image.", "i"),
    "WebQA": ("<|image_1|>\nFind a Wikipedia image that answers this question: Who?\n", "Represent the given Wikipedia image", "i"),
    "EDIS": ("<|image_1|>\nFind a news image that matches the provided caption: c\n", "Represent the given image with related", "i"),
    "Wiki-SS-NQ": ("Find the document image that can answer the given query: q\n", "Represent the given image", "i"),
    "MSCOCO": ('<|image_1|>\nCrop the image to to isolate the object labeled as "dog"\n', "Represent the given cropped image", "i"),
    "RefCOCO": ('<|image_1|>\nSelect the portion of the image that follows the language expressions. "left"\n', "Represent it", "i"),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_reach_the_model_as_they_are_stored(root, write_parquet, name):
    """Word for word, "to to" included; the placeholder goes, whether there is an image (GQA) or not (WebQA, EDIS)."""
    query, target, image = INSTRUCTIONS[name]
    shown = "" if name in ("VisDial", "WebQA", "EDIS", "Wiki-SS-NQ") else "S/q.png"
    stored = f"<|image_1|>\n{target}" if image else "label"
    write_parquet(root / name / FILE, [ranking(query, shown, (stored,), ("S/q.png" if image else "",))])
    ((row,),) = (found.rows for found in load_sets(root))
    assert row.query.text == query.removeprefix("<|image_1|>\n").strip()
    assert (len(row.query.images), row.candidates[0].text) == (bool(shown), target or "label")
