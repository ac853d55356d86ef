"""Which rules a benchmark's name stands for, which rows count, and what is refused before any work."""

from dataclasses import replace

import pytest

from data_prep.samples import DataError
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate.protocols import COLUMNS, OWN, protocol_of, selected


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("MMBench_DEV_EN", "MMB"),
        ("MMBench_DEV_EN_V11", "MMB"),
        ("MMBench_DEV_CN", None),
        ("MMVet", "MMVet"),
        ("AI2D_TEST", "AI2D"),
        ("AI2D_TEST_NO_MASK", None),
        ("HallusionBench", "Hallusion"),
        ("MMMU_DEV_VAL", "MMMU"),
        ("MMStar", "MMStar"),
    ],
)
def test_the_six_by_name(name: str, column: str | None) -> None:
    protocol = protocol_of(name)
    assert (protocol.column, protocol.image_tokens, protocol.max_new_tokens) == (column, (1280, 16384), 2048)


def test_columns_are_the_papers_and_each_has_its_kind() -> None:
    assert COLUMNS == ("MMB", "MMVet", "AI2D", "Hallusion", "MMMU", "MMStar")
    names = ("MMBench_DEV_EN", "MMVet", "AI2D_TEST", "HallusionBench", "MMMU_DEV_VAL", "MMStar")
    kinds = [protocol_of(name).kind for name in names]
    assert kinds == ["multiple_choice", "open", "multiple_choice", "yes_no", "multiple_choice", "multiple_choice"]
    assert [name for name in names if protocol_of(name).needs_judge] == ["MMVet"]
    assert [name for name in names if protocol_of(name).always_english] == ["MMMU_DEV_VAL"]


@pytest.mark.parametrize("name", ["ShapesBench_MCQ", "Pope", "MyMMStar", "MMMU_Pro_10c"])
def test_any_other_name_is_a_set_of_ones_own(name: str) -> None:
    assert protocol_of(name) == OWN
    assert (OWN.image_tokens, OWN.max_new_tokens, OWN.needs_judge) == (None, 64, False)


def row(index: str, answer: str = "B", options: bool = True, **extra: str) -> BenchmarkRow:
    return BenchmarkRow(index, (), "which?", "", {"A": "a ring", "B": "a star"} if options else {}, answer, "", extra)


def test_mmmu_counts_its_validation_rows() -> None:
    splits = ["dev", "validation", "validation", "dev", "validation"]
    whole = Benchmark("MMMU_DEV_VAL", "multiple_choice", [row(str(i), split=split) for i, split in enumerate(splits)], without_image=2)
    chosen, left_out = selected(whole)
    assert [row.index for row in chosen.rows] == ["1", "2", "4"]
    assert left_out == {"without an image": 2, "of split dev": 2}
    assert selected(replace(whole, name="Own")) == (replace(whole, name="Own"), {"without an image": 2})
    with pytest.raises(DataError, match="found no row of split validation"):
        selected(replace(whole, rows=[row("1", split="dev")]))


FIGURE = "VD_figure_1_0_0_0"


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        (Benchmark("MMVet", "multiple_choice", [row("1")]), r"found multiple choice questions; expected open ones \(no options\)"),
        (Benchmark("MMStar", "open", [row("1", options=False)]), r"found open questions; expected multiple choice ones \(columns A, B"),
        (Benchmark("HallusionBench", "open", [row(FIGURE, "maybe", False)]), "found open questions; expected yes no ones"),
        (
            Benchmark("HallusionBench", "yes_no", [row(FIGURE, "yes", False), row("7", "no", False)]),
            "found 1 of 2 rows, the first with index '7', that cannot be scored; expected an index of six fields",
        ),
        (Benchmark("MMVet", "open", [row("v1_0", "a<AND>", False)]), "index 'v1_0', that cannot be scored; expected an answer with a word"),
        (Benchmark("Own", "open", [row("1", "...", False)]), "expected an answer with a word in each"),
        (Benchmark("Own", "multiple_choice", [row("1"), row("2", " ", False)]), "index '2', .* expected options, or the answer"),
        (Benchmark("MMBench_DEV_EN", "multiple_choice", [row("1"), row("1000002")]), "1 rotations without .* the question 2 too"),
        (Benchmark("MMBench_DEV_EN", "multiple_choice", [row("1"), row("1000001"), row("x")]), "index 'x', .* whole numbers"),
    ],
)
def test_refused_before_any_work(benchmark: Benchmark, message: str) -> None:
    with pytest.raises(DataError, match=message):
        selected(benchmark)


@pytest.mark.parametrize("index", ["x", "1.5", "-3", "²"])
def test_an_index_needs_no_number_where_nothing_is_rotated(index: str) -> None:
    benchmark = Benchmark("Own", "multiple_choice", [row("1"), row(index)])
    assert selected(benchmark) == (benchmark, {})
