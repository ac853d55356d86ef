"""What stands in study.md and study.json: our figures, the paper's under their mark, the verdicts."""

import json

from pipeline.study import tables
from pipeline.study.arms import Sources, ablation, elastic, selected
from pipeline.study.scores import Mean, Scores

ARMS = selected(ablation(Sources((), (), ())), ("retrieval_only", "full", "both_losses"))
FULL = Scores(Mean(0.5, 0.02), Mean(0.6, 0.03), Mean(0.4, 0.03), Mean(0.35, 0.01), Mean(0.25, 0.01), 0.117, 0.05, 0.15)
PLAIN = Scores(Mean(0.4, 0.02), None, None, Mean(0.355, 0.01), None, None, 0.05, None)
RESULTS = {"retrieval_only": {0: PLAIN}, "full": {4: FULL}}


def test_a_row_per_evaluation_that_is_done():
    table = tables.results_table("ablation", ARMS, RESULTS)
    assert table.head[-4:] == ("[published] row", "[published] MMEB", "[published] native", "[published] comp.")
    assert [row[1:] for row in table.rows] == [
        ("0", "40.0", "2.0", "5.0", "-", "-", "35.5", "1.0", "-", "-", "-", "-", "retrieval only", "62.3", "43.4", "-"),
        ("4", "50.0", "2.0", "5.0", "60.0", "40.0", "35.0", "1.0", "15.0", "25.0", "1.0", "11.70", "CREM, K = 16", "66.7", "53.1", "44.2"),
    ]
    assert any("published, not run here" in note for note in table.notes)


def test_an_elastic_run_has_a_row_per_size_and_no_published_one():
    arms = elastic((1, 4))
    table = tables.results_table("elastic", arms, {"elastic": {1: PLAIN, 4: FULL}})
    assert [(row[1], row[-3]) for row in table.rows] == [("1 of 4", "-"), ("4", "-")]


def test_markdown_and_console_tell_the_verdicts():
    text = tables.markdown("ablation", ARMS, RESULTS, {"data": "a|b"})
    assert "| retrieval only loses native answers | native answers | 35.0 | 35.5 | -0.5 | 1.4 | within noise | 53.1 | 43.4 |" in text
    assert "| the full method answers better than both losses alone | native answers | - | - | - | - | not measured | 53.1 | 47.2 |" in text
    assert "published, not run here" in text and r"a\|b" in text
    shown = tables.console(ARMS, RESULTS)
    assert "within noise" in shown and max(map(len, shown.splitlines())) <= 110


def test_json_holds_fractions_digests_and_the_citation():
    value = json.loads(
        tables.as_json("ablation", ARMS, RESULTS, {"seed": "0"}, {"full": "d1", "retrieval_only": "d2", "both_losses": "d3"})
    )
    full = next(arm for arm in value["arms"] if arm["name"] == "full")
    assert full["scores"]["4"]["p_at_1"] == {"value": 0.5, "error": 0.02} and full["settings_digest"] == "d1"
    assert [arm["name"] for arm in value["arms"]] == ["retrieval_only", "full"]
    assert value["findings"][0]["verdict"] == "within noise" and round(value["findings"][0]["difference"]["value"], 6) == -0.005
    assert value["published"]["label"] == "published, not run here"


def test_headline_names_arm_size_and_measure():
    assert tables.headline({"full": {4: FULL}}) == {"full/p_at_1": 0.5, "full/native": 0.35, "full/compressed": 0.25}
    assert list(tables.headline({"elastic": {1: PLAIN, 4: PLAIN}})) == [f"elastic/k{k}/{m}" for k in (1, 4) for m in ("p_at_1", "native")]


def test_write_is_whole(tmp_path):
    assert tables.write(tmp_path, {"study.md": "x"}) == [tmp_path / "study.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.md"]
