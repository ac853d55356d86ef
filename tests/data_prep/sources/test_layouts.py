"""Whole corpora in the layout they have on the Hub or on disk, a few rows each, read as the job and the evaluation read them."""

import base64
import csv
from pathlib import Path

import pytest

from data_prep.images import ImageError, open_image
from data_prep.samples import ImageRef, Side
from data_prep.sources import discover, read
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.mmeb_eval import load_sets

SIX = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")


def rows_of(root: Path, **how) -> dict[str, list]:
    """Everything that is read below a folder, by source."""
    out: dict[str, list] = {}
    for part in discover(root, **how):
        out.setdefault(part.source, []).extend(read(part, 0, part.rows))
    return out


def openable(sample) -> bool:
    sides = [sample.query, *filter(None, [sample.positive]), *sample.negatives]
    return all(open_image(ref).size == (2, 2) for side in sides for ref in side.images)


def row(*values) -> dict:
    return dict(zip(SIX, values, strict=False))


@pytest.fixture
def mmeb_train(tmp_path, write_image, write_parquet) -> Path:
    """Three of MMEB-train's twenty subsets as they lie on the Hub after unpacking: two splits and the old one, `._*` leftovers."""
    root = tmp_path / "data" / "MMEB-train"
    instruction = {"original": "Represent the given image", "diverse_instruction": "Identify the picture", "train": "Old"}
    for split, words in instruction.items():
        file = f"{split}-00000-of-00001.parquet"
        rows = [row(f"<|image_1|>\n{words}: q{i}\n", f"images/ChartQA/Train/{i}.png", "12  ", "", "13", "") for i in range(2)]
        write_parquet(root / "ChartQA" / file, rows)
        webqa = row(f"<|image_1|>\n{words}: who?\n", "", "<|image_1|>\nRepresent the page\n", "images/WebQA/a.png")
        write_parquet(root / "WebQA" / file, [webqa])
        hot_dog = "images/MSCOCO/Train/558840_object_hot dog.jpg"
        write_parquet(root / "MSCOCO" / file, [row(f"{words} label", "images/MSCOCO/Train/558840.jpg", "Represent the crop", hot_dog)])
        (root / "ChartQA" / f"._{file}").write_bytes(b"\0\5\26\7")
    for name in ("ChartQA/Train/0.png", "ChartQA/Train/1.png", "WebQA/a.png", "MSCOCO/Train/558840.jpg"):
        write_image(root / "images" / name)
    write_image(root / "images" / "MSCOCO/Train/558840_object_hot dog.jpg")
    (root / "._ChartQA").mkdir()
    (root / "images_zip").mkdir()
    (root / "README.md").touch()
    return root


@pytest.mark.parametrize(("split", "words"), [("original", "Represent the given image"), ("diverse_instruction", "Identify the picture")])
def test_mmeb_train_in_both_splits(mmeb_train, split, words):
    found = rows_of(mmeb_train.parent, split=split)
    assert list(found) == ["mmeb_train/ChartQA", "mmeb_train/MSCOCO", "mmeb_train/WebQA"]
    chart, (coco,), (web,) = found.values()
    assert [sample.id for sample in chart] == [f"mmeb_train/ChartQA/{split}/{i}" for i in range(2)]
    assert (chart[0].query.text, chart[0].positive, chart[0].negatives) == (f"{words}: q0", Side("12"), (Side("13"),))
    assert web.query == Side(f"{words}: who?")  # an orphan placeholder: no image
    assert coco.query == Side(f"{words} label", (ImageRef("images/MSCOCO/Train/558840.jpg", mmeb_train),))  # an image without one
    assert coco.negatives == ()  # no neg columns
    assert all(openable(sample) for samples in found.values() for sample in samples)


def test_subsets_may_have_image_roots_of_their_own(mmeb_train, tmp_path, write_image, write_parquet):
    (mmeb_train / "images" / "WebQA").rename(tmp_path / "elsewhere")
    disk = tmp_path / "disk"
    (disk / "WebQA" / "images").mkdir(parents=True)
    (tmp_path / "elsewhere").rename(disk / "WebQA" / "images" / "WebQA")
    write_image(disk / "images" / "CIRR" / "a.png")
    write_parquet(mmeb_train / "CIRR" / "original-00000-of-00001.parquet", [row("q", "images/CIRR/a.png", "p", "")])
    roots = {part.source.split("/")[1]: part.root for part in discover(mmeb_train, image_root=disk)}
    assert roots == {"ChartQA": mmeb_train, "MSCOCO": mmeb_train, "WebQA": disk / "WebQA", "CIRR": disk}


def test_one_missing_image_does_not_hide_the_others(mmeb_train):
    (mmeb_train / "images" / "ChartQA" / "Train" / "0.png").unlink()
    lost, there = rows_of(mmeb_train)["mmeb_train/ChartQA"]
    with pytest.raises(ImageError, match="missing: "):
        openable(lost)
    assert openable(there)


def test_mme5_hard_negatives_beside_mmeb_train(mmeb_train, write_image, write_parquet):
    """intfloat/mmE5-MMEB-hardneg: lists written as strings, images of MMEB-train and of its own archives."""
    root = mmeb_train.parent / "mmE5-MMEB-hardneg"
    file = "train-00000-of-00001.parquet"
    images = ["images/MSCOCO/Train/558840.jpg", "images/MSCOCO/Train/558840_object_hot dog.jpg"]
    first = row("q", "", "p", images[0], "['<|image_1|>\\nRepresent the image\\n', '']", repr(images))
    write_parquet(root / "MSCOCO_t2i" / file, [first, row("q", "", "it's", "", str(["it isn't", "[sic]"]), "['', '']")])
    write_image(root / "images" / "TAT-DQA" / "1.png")
    write_parquet(root / "TAT-DQA" / file, [row("q", "TAT-DQA/1.png", "p", "", "['n1', 'n2', 'n3']", "['', '', '']")])
    found = rows_of(root, split="train")
    images_and_text, texts = found["mmeb_train/MSCOCO_t2i"]
    refs = [ImageRef(name, mmeb_train) for name in images]
    assert images_and_text.negatives == (Side("Represent the image", (refs[0],)), Side("", (refs[1],)))
    assert texts.negatives == (Side("it isn't"), Side("[sic]"))
    (tat,) = found["mmeb_train/TAT-DQA"]
    assert tat.negatives == (Side("n1"), Side("n2"), Side("n3")) and tat.query.images[0].root == root / "images"
    assert all(openable(sample) for samples in found.values() for sample in samples)


def test_mme5_synthetic(tmp_path, write_image, write_parquet):
    """intfloat/mmE5-synthetic: three configurations, LAION images in an archive of their own."""
    root = tmp_path / "mmE5-synthetic"
    for name in ("Classification", "Retrieval", "VQA"):
        write_parquet(root / name / "train-00000-of-00001.parquet", [row("<|image_1|>\nq", "LAION/1.jpg", "p", "", "['n']", "['']")])
    write_image(root / "images" / "LAION" / "1.jpg")
    found = rows_of(root, split="train")
    assert list(found) == ["mmeb_train/Classification", "mmeb_train/Retrieval", "mmeb_train/VQA"]
    assert all(openable(sample) and sample.negatives == (Side("n"),) for (sample,) in found.values())


@pytest.mark.parametrize("encoded", [list, repr])
def test_several_images_on_a_side(mmeb_train, write_parquet, encoded):
    names = ["images/ChartQA/Train/0.png", "images/ChartQA/Train/1.png"]
    write_parquet(mmeb_train / "Two" / "original-00000-of-00001.parquet", [row("compare", encoded(names), "p", encoded(names[:1]))])
    (sample,) = rows_of(mmeb_train)["mmeb_train/Two"]
    assert sample.query == Side("compare", tuple(ImageRef(name, mmeb_train) for name in names))
    assert sample.positive == Side("p", (ImageRef(names[0], mmeb_train),))


def test_mmeb_test_instruct(tmp_path, write_image, write_parquet):
    """ziyjiang/MMEB_Test_Instruct with the images of MMEB-V2's archive: instructions stand in columns of their own."""
    cells = {"qry_inst": "<|image_1|>\nIdentify the scene", "qry_text": "", "qry_img_path": "SUN397/1.jpg"}
    targets = {"tgt_inst": ["", ""], "tgt_text": ["zoo", "park"], "tgt_img_path": ["", ""]}
    write_parquet(tmp_path / "SUN397" / "test-00000-of-00001.parquet", [{**cells, **targets}])
    image = write_image(tmp_path / "images" / "MMEB" / "SUN397" / "1.jpg")
    (loaded,) = load_sets(tmp_path)
    assert (loaded.name, loaded.meta, loaded.split) == ("SUN397", "classification", "IND")
    (only,) = loaded.rows
    assert only.query == Side("Identify the scene", (ImageRef("SUN397/1.jpg", tmp_path / "images" / "MMEB"),))
    assert only.candidates == (Side("zoo"), Side("park")) and image.is_file()


FILES = {
    "sharegpt4v_instruct_gpt4-vision_cap100k.json": ["coco/train2017/000000000009.jpg", "sam/images/sa_1.jpg"],
    "share-captioner_coco_lcs_sam_1246k_1107.json": ["sam/images/sa_2.jpg", "llava/llava_pretrain/images/00453/1.jpg"],
    "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json": ["gqa/images/1.jpg", "ocr_vqa/images/1.jpg", None],
}


def test_sharegpt4v_s_three_files(tmp_path, write_image, write_json):
    """With images as its docs/Data.md lays them out; SA-1B is missing, as it often is, and one of the rows is text only."""
    for file, names in FILES.items():
        records = []
        for number, name in enumerate(names):
            mark = "<image>\n" if name else ""
            turns = [{"from": "human", "value": f"{mark}What is it?"}, {"from": "gpt", "value": "A cat."}]
            records.append({"id": str(number), "conversations": turns, **({"image": name} if name else {})})
            if name and "sam/" not in name:
                write_image(tmp_path / name)
        write_json(tmp_path / file, records)
    found = rows_of(tmp_path)
    assert sorted(found) == sorted(f"sharegpt4v/{file.removesuffix('.json')}" for file in FILES)
    samples = [sample for source in found.values() for sample in source]
    assert len(samples) == 7 and all(sample.turns[0].question == "What is it?" for sample in samples)
    missing = []
    for sample in samples:
        try:
            assert openable(sample)
        except ImageError as error:
            missing.append((sample.query.images[0].name, error.code))
    assert sorted(missing) == [("sam/images/sa_1.jpg", "missing"), ("sam/images/sa_2.jpg", "missing")]


@pytest.mark.parametrize("name", ["llava.json", "qwen.jsonl"])
def test_llava_and_qwen_conversations_with_several_images(tmp_path, write_image, write_json, name):
    for image in ("1.jpg", "2.jpg"):
        write_image(tmp_path / "images" / image)
    roles = ("human", "gpt") if name == "llava.json" else ("user", "assistant")
    values = ("<image>\n<image>\nWhich is older?", "The first.", "Why?", "Its colour.")
    turns = [{"from": roles[i % 2], "value": value} for i, value in enumerate(values)]
    write_json(tmp_path / name, [{"image": ["images/1.jpg", "images/2.jpg"], "conversations": turns}])
    ((sample,),) = rows_of(tmp_path).values()
    assert [ref.name for ref in sample.query.images] == ["images/1.jpg", "images/2.jpg"]
    assert [(turn.question, turn.answer) for turn in sample.turns] == [("Which is older?", "The first."), ("Why?", "Its colour.")]
    assert openable(sample)


def test_a_vlmevalkit_tsv_with_shared_and_several_images(tmp_path, write_image):
    """As MMBench (shared by index) and MMMU (a list written as a string) have them in one column."""
    one = base64.b64encode(write_image(tmp_path / "1.png").read_bytes()).decode()
    header = ["index", "question", "hint", "A", "B", "C", "answer", "category", "l2-category", "split", "image"]
    rows = [
        ["0", "q0", "", "cat", "dog", "", "A", "c", "l", "dev", one],
        ["1000000", "q0", "", "dog", "cat", "", "B", "c", "l", "dev", "0"],
        ["2", "<image 1> or <image 2>?", "h", "x", "y", "z", "C", "c", "l", "dev", str([one, one])],
    ]
    with open(tmp_path / "MMMU_DEV_VAL.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])
    loaded = load_benchmark(tmp_path / "MMMU_DEV_VAL.tsv")
    assert [(row.index, len(row.images), list(row.options)) for row in loaded.rows] == [
        ("0", 1, ["A", "B"]),
        ("1000000", 1, ["A", "B"]),
        ("2", 2, ["A", "B", "C"]),
    ]
    assert loaded.rows[0].images == loaded.rows[1].images and open_image(loaded.rows[2].images[1]).size == (2, 2)
