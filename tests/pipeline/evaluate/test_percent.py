"""One form for all shares."""

from pipeline.evaluate.percent import percent


def test_one_form_for_all_shares() -> None:
    assert [percent(share) for share in (0.0, 0.12345, 1.0, -0.004, None)] == ["0.0", "12.3", "100.0", "-0.4", "-"]
    assert percent(0.34777, digits=2) == "34.78" and percent(None, 2) == "-"
