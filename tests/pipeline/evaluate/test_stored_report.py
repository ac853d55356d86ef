"""A report comes back from its scores.json, its base included."""

import json
from dataclasses import replace

import pytest

from pipeline.evaluate.report import as_json
from pipeline.evaluate.stored_report import stored_report


def test_a_report_comes_back(written, make) -> None:
    base = written("base").set(make.words("Own", 4), [True, False, False, True]).report()
    report = replace(written("own").benchmark(make.questions("Open", "open", ["1"]), "native", [0.5]).report(), base=base)
    stored = json.loads(as_json(report))
    assert stored_report(stored) == report
    stored["retrieval"] = [{"name": "x"}]
    with pytest.raises(TypeError):
        stored_report(stored)
