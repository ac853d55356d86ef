"""No text becomes a special token, whichever door it comes through: the inference API, benchmark rows, retrieval candidates.

Every sequence that is encoded on the way is kept, and must hold the special tokens that it holds for harmless texts: no more, no fewer.
"""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.encode import Encoder
from data_prep.samples import Side
from data_prep.sequence import TokenSequence
from data_prep.sources.benchmarks import BenchmarkRow, load_benchmark
from data_prep.sources.mmeb_eval import load_sets
from pipeline.evaluate.mmeb import plan_set
from pipeline.evaluate.vlm import plan_benchmark
from pipeline.evaluate.worker import compute
from pipeline.inference import CremModel
from tests.hostile import PLACEHOLDERS, hostile

COUNT = 40


@pytest.fixture(scope="module")
def crem(checkpoint: Path) -> CremModel:
    return CremModel.open(checkpoint)


@pytest.fixture(scope="module")
def texts(encoder: Encoder) -> list[str]:
    names = [token.content for token in encoder.tokenizer.added_tokens_decoder.values()]
    return list(hostile(names + list(PLACEHOLDERS), COUNT, seed=4))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[TokenSequence]:
    """What the real encoder makes from here on."""
    kept, real = [], Encoder.sequence

    def sequence(self: Encoder, *args, **kwargs) -> TokenSequence:
        kept.append(real(self, *args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(Encoder, "sequence", sequence)
    return kept


def specials(sequences: list[TokenSequence], crem: CremModel) -> list[Counter]:
    known = crem.opened.encoder.tokenizer.added_tokens_decoder
    return [Counter(i for i in sequence.ids.tolist() if i in known) for sequence in sequences]


def same_specials(encoded: list[TokenSequence], crem: CremModel, count: int) -> None:
    """The first half was made of hostile texts, the second of harmless ones; each has chorus tokens, so something was counted."""
    assert len(encoded) == count
    found = specials(encoded, crem)
    assert found[: count // 2] == found[count // 2 :]
    assert all(own[crem.opened.encoder.chorus_ids[0]] == 1 for own in found)


def test_the_inference_api(crem: CremModel, texts: list[str], encoded: list[TokenSequence]) -> None:
    images = [Image.new("RGB", (56, 56), "red") if i % 2 else None for i in range(COUNT)]
    stored = crem.remember(images)
    encoded.clear()
    for own in (texts, ["a ring"] * COUNT):
        crem.embed(images, own)
        crem.answer(images, own, max_new_tokens=1, texts=own)
        crem.answer(images, own, "compressed", max_new_tokens=1)
        crem.remember(images, own)
        crem.answer_from(stored, own, max_new_tokens=1)
    same_specials(encoded, crem, 2 * 5 * COUNT)


def test_benchmark_questions_hints_and_options(crem: CremModel, texts: list[str], encoded: list[TokenSequence], tmp_path: Path) -> None:
    Image.new("RGB", (56, 56), "red").save(tmp_path / "a.png")
    (tmp_path / "Bench.tsv").write_text("index\tquestion\tanswer\tA\tB\timage_path\n0\twhat?\tA\tx\ty\ta.png\n")
    benchmark = load_benchmark(tmp_path / "Bench.tsv")

    def row(number: int, text: str) -> BenchmarkRow:
        return BenchmarkRow(str(number), benchmark.rows[0].images, text, text, {"A": text, "B": text}, "A", "", {})

    for own in (texts, [f"ring {i}" for i in range(COUNT)]):  # equal questions would be asked once
        benchmark.rows[:] = [row(number, text) for number, text in enumerate(own)]
        for unit in plan_benchmark(benchmark, "compressed", crem.opened.encoder, {}, 1).units:
            compute(unit, crem.opened)
    same_specials(encoded, crem, 2 * COUNT)


def test_retrieval_queries_and_candidates(crem: CremModel, texts: list[str], encoded: list[TokenSequence], tmp_path: Path) -> None:
    (tmp_path / "Set").mkdir()
    own = [f"x{number} {text}" for number, text in enumerate(texts)]  # a text of an image marker alone would be empty
    rows = [{"qry_text": text, "qry_img_path": "", "tgt_text": [f"y{text}", f"z{text}"], "tgt_img_path": ["", ""]} for text in own]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "Set" / "test-0.parquet")
    for unit in plan_set(*load_sets(tmp_path), crem.opened.encoder, {}).units:
        compute(unit, crem.opened)
    assert len(encoded) == 3 * COUNT
    harmless = crem.opened.encoder.sequence(Side("a ring"))  # the last of `encoded`
    assert specials(encoded, crem) == specials([harmless], crem) * (3 * COUNT + 1)
