"""The arms are those of the paper's tables, in the trainer's own words."""

import pytest

from data_prep.samples import DataError
from pipeline.study.arms import Sources, ablation, elastic, fixed, selected
from pipeline.train.cli import parse

BOTH = Sources(("synqa/A",), ("sharegpt4v/B",), ("sharegpt4v/B",))


def by_name(arms) -> dict:
    return {arm.name: arm for arm in arms}


def test_the_ablation_leaves_out_one_part_after_the_other():
    arms = by_name(ablation(BOTH))
    assert list(arms) == [
        "retrieval_only",
        "retrieval_only_chorus",
        "generation_only",
        "both_losses",
        "both_losses_chorus",
        "full",
        "homogeneous_only",
        "heterogeneous_only",
    ]
    assert [arm.k for arm in arms.values()] == [0, 4, 4, 0, 4, 4, 4, 4]
    read = {name: parse(["tiny", *arm.words]).config for name, arm in arms.items()}
    seen = {name: (c.loss.retrieval_weight, c.loss.generation_weight, c.loss.compression_probability) for name, c in read.items()}
    assert seen["retrieval_only"] == seen["retrieval_only_chorus"] == (1.0, 0.0, 0.5)
    assert seen["generation_only"] == (0.0, 0.5, 0.0)
    assert seen["both_losses"] == seen["both_losses_chorus"] == (1.0, 0.5, 0.0)
    assert seen["full"] == seen["homogeneous_only"] == seen["heterogeneous_only"] == (1.0, 0.5, 0.5)
    assert read["homogeneous_only"].data.weights == {"sharegpt4v/B": 0.0} and read["homogeneous_only"].batch.conversations == 0
    assert read["heterogeneous_only"].data.weights == {"synqa/A": 0.0} and read["heterogeneous_only"].batch.conversations == 24


def test_published_rows_stand_with_the_arm_they_belong_to():
    rows = {arm.name: arm.published for arm in ablation(BOTH, sweep=(16, 3))}
    figures = {name: (row.mmeb, row.native, row.compressed) for name, row in rows.items() if row}
    assert figures == {
        "retrieval_only": (62.3, 43.4, None),
        "generation_only": (2.9, 53.2, None),
        "both_losses": (66.1, 47.2, None),
        "full": (66.7, 53.1, 44.2),
        "k16": (66.7, 53.1, 44.2),
    }


def test_homogeneous_data_with_unpaired_rows_keeps_its_conversations():
    sources = Sources(("synqa/A", "synqa/A-unpaired"), ("llava/B",), ("synqa/A-unpaired", "llava/B"))
    arms = by_name(ablation(sources))
    assert arms["homogeneous_only"].words == ("--data.weights", "llava/B", "0")
    assert arms["heterogeneous_only"].words == ("--data.weights", "synqa/A", "0", "synqa/A-unpaired", "0")


def test_one_kind_of_data_is_no_arm_of_its_own():
    assert "homogeneous_only" not in by_name(ablation(Sources((), ("b",), ("b",))))


def test_the_sweep_adds_sizes_but_not_the_full_arm_twice():
    assert [arm.name for arm in ablation(BOTH, k=4, sweep=(16, 4, 1, 16))][8:] == ["k1", "k16"]


def test_elastic_is_scored_at_every_size_beside_a_run_of_each():
    arms = elastic((4, 1))
    assert [(arm.name, arm.k, arm.evaluate_at) for arm in arms] == [("elastic", 4, (1, 4)), ("k1", 1, (1,)), ("k4", 4, (4,))]
    assert parse(["tiny", *arms[0].words]).config.chorus.elastic == (1, 4)
    assert [arm.k for arm in elastic()] == [16, 1, 2, 4, 8, 16]


@pytest.mark.parametrize("sizes", [(0, 4), (65, 1), (-1,)])
def test_sizes_out_of_range_are_refused(sizes):
    for make in (lambda: elastic(sizes), lambda: ablation(BOTH, sweep=sizes)):
        with pytest.raises(DataError, match=r"expected 1 to 64"):
            make()


def test_one_size_is_nothing_elastic():
    with pytest.raises(DataError, match="two or more"):
        elastic((4, 4))


def test_selected_keeps_order_and_refuses_strangers():
    arms = (fixed(1), fixed(2), fixed(4))
    assert [arm.name for arm in selected(arms, ("k4", "k1"))] == ["k1", "k4"]
    assert selected(arms, ()) == arms
    with pytest.raises(DataError, match="found k8; expected names among k1, k2, k4"):
        selected(arms, ("k8", "k1"))
