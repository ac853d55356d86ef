"""An arm is run once for its settings, and never mixed with another's."""

import pytest

from data_prep.samples import DataError
from pipeline.config import RunConfig
from pipeline.study.arms import fixed
from pipeline.study.identity import decide, differences, digest, identity
from pipeline.train.cli import parse

INPUTS = {"data": "abc"}


def of(*words: str, k: int = 4, inputs: dict = INPUTS) -> dict:
    return identity(fixed(k), parse(["tiny", *words]).config, inputs)


def test_where_a_run_lies_and_how_it_is_watched_is_not_its_identity():
    moved = of("--out", "x", "--model.checkpoint", "y", "--data.shards", "z", "--log-every", "1", "--track.parent", "0")
    assert digest(moved) == digest(of())


@pytest.mark.parametrize(
    "other",
    [of("--steps", "7"), of("--seed", "1"), of("--loss.temperature", "0.1"), of(k=2), of(inputs={"data": "abd"})],
    ids=["steps", "seed", "temperature", "k", "data"],
)
def test_what_the_result_depends_on_is(other):
    assert digest(other) != digest(of())


def test_decisions():
    wanted = of()
    assert decide("k4", None, wanted, scored=False) == "new"
    assert decide("k4", of(), wanted, scored=False) == "continue"
    assert decide("k4", of(), wanted, scored=True) == "done"


@pytest.mark.parametrize("scored", [False, True])
def test_a_changed_setting_is_an_error_that_says_which(scored):
    with pytest.raises(DataError, match=r"arm k4: .*training\.steps: 600 then, 7 now.*Name another --out"):
        decide("k4", of(), of("--steps", "7"), scored)


def test_identity_is_json_and_leaves_the_configuration_whole():
    config = RunConfig()
    assert identity(fixed(2), config, INPUTS)["evaluate_at"] == [2]
    assert config.model.checkpoint == "work/crem-init"


def test_differences_names_settings_that_came_or_went():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == ["a.b: 1 then, 3 now", "a.c: 2 then, None now"]
