"""Claims find their two figures; verdicts follow from difference and error alone."""

import pytest

from pipeline.study.arms import Sources, ablation, elastic
from pipeline.study.findings import Claim, claims, judge, verdict
from pipeline.study.scores import Difference, Mean, Scores

ABLATION = ablation(Sources(("a",), ("b",), ("b",)), k=4, sweep=(1, 16))


def scores(p: float, native: float, compressed: float | None = None, error: float = 0.01) -> Scores:
    return Scores(
        Mean(p, error), None, None, Mean(native, error), compressed if compressed is None else Mean(compressed, error), None, None, None
    )


@pytest.mark.parametrize(
    ("a", "b", "said"), [(0.5, 0.3, "yes"), (0.3, 0.5, "no"), (0.50, 0.47, "within noise"), (0.46, 0.50, "within noise")]
)
def test_verdict(a, b, said):
    assert verdict(Difference(a, b, 0.05)) == said


def test_not_measured():
    claim = Claim("x", "compressed", ("full", 4), ("both_losses", 0))
    assert verdict(None) == "not measured"
    assert judge([claim], {})[0].verdict == "not measured"
    results = {"full": {4: scores(0.1, 0.1, 0.1)}, "both_losses": {0: scores(0.1, 0.1)}}
    assert judge([claim], results)[0] == (claim, None, "not measured")


def test_the_papers_findings_reappear_in_the_papers_own_figures():
    """Its rows, as if they were ours, with the errors that 10,000 questions give: everything it says of them must come out as yes."""
    results = {
        "full": {4: scores(0.661, 0.523, 0.417, error=0.005)},
        "retrieval_only": {0: scores(0.623, 0.434, error=0.005)},
        "generation_only": {4: scores(0.029, 0.532, error=0.005)},
        "both_losses": {0: scores(0.645, 0.472, error=0.005)},
        "k1": {1: scores(0.656, 0.519, 0.382, error=0.005)},
        "k16": {16: scores(0.667, 0.531, 0.442, error=0.005)},
    }
    seen = {f.claim.statement: f for f in judge(claims(ABLATION), results)}
    said = {words: f.verdict for words, f in seen.items() if f.verdict != "not measured"}
    assert said == {
        "retrieval only loses native answers": "yes",
        "generation only cannot retrieve": "yes",
        "answer training helps retrieval (both losses over retrieval only)": "yes",
        "the full method answers better than both losses alone": "yes",
        "the full method retrieves better than both losses alone": "yes",
        "more chorus tokens help Precision@1 (16 over 1)": "within noise",
        "more chorus tokens help native answers (16 over 1)": "within noise",
        "more chorus tokens help compressed answers (16 over 1)": "yes",
    }
    first = seen["retrieval only loses native answers"]
    assert (first.difference.a, first.difference.b) == (0.523, 0.434) and first.claim.paper == (53.1, 43.4)
    assert seen["more chorus tokens help compressed answers (16 over 1)"].claim.paper == (44.2, 38.2)


def test_elastic_is_held_against_the_run_of_each_size():
    arms = elastic((1, 4))
    results = {
        "elastic": {1: scores(0.2, 0.5, 0.3), 4: scores(0.4, 0.5, 0.5)},
        "k1": {1: scores(0.3, 0.5, 0.2)},
        "k4": {4: scores(0.4, 0.3)},
    }
    seen = {(f.claim.measure, f.claim.less): f.verdict for f in judge(claims(arms), results) if f.claim.more[0] == "elastic"}
    assert seen == {
        ("p_at_1", ("k1", 1)): "no",
        ("p_at_1", ("k4", 4)): "within noise",
        ("native", ("k1", 1)): "within noise",
        ("native", ("k4", 4)): "yes",
        ("compressed", ("k1", 1)): "yes",
        ("compressed", ("k4", 4)): "not measured",
    }
