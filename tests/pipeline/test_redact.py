"""Names that MLflow takes, and values without secrets; what reaches the store is checked in track/test_tracker.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name
from pydantic import BaseModel

from pipeline.redact import clean_key, cut, flatten, redact, scrub


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 128),
        ("chorus_tokens", [8, 16]),
        ("tokens_seen", "1000000"),
        ("tokenizer", "Qwen/Qwen2-VL-2B"),
        ("uri", "sqlite:///work/mlflow.db"),
        ("uri", "http://127.0.0.1:5000"),
        ("note", "16 tokens = 1.12 % of the cache; max_tokens=5"),
        ("password", ""),
        ("keyboard", "qwerty"),
    ],
)
def test_settings_that_only_look_secret_are_kept(name: str, value: object) -> None:
    assert redact(name, value) == str(value)


@given(st.text(max_size=300))
def test_clean_keys_are_taken_by_mlflow(key: str) -> None:
    _validate_metric_name(clean_key(key))
    assert clean_key(clean_key(key)) == clean_key(key)


def test_long_keys_stay_apart() -> None:
    assert len({clean_key("k" * 300), clean_key("k" * 301)}) == 2
    with pytest.raises(MlflowException):
        _validate_metric_name("k/../é")  # what `clean_key` is for


@given(st.text(max_size=80))
def test_scrub_is_stable(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


class _Inner(BaseModel):
    rank: int = 16


def test_flatten() -> None:
    nested = {"lora": _Inner(), "data": [{"name": "a"}, {"name": "b"}], "betas": (0.9, 0.95), "empty": {}}
    assert dict(flatten(nested)) == {
        "lora.rank": 16,
        "data.0.name": "a",
        "data.1.name": "b",
        "betas": (0.9, 0.95),
        "empty": {},
    }


def test_long_values_are_cut() -> None:
    assert cut("x" * 6000) == "x" * 6000
    assert cut("x" * 6001) == "x" * 5991 + "... (cut)"


@pytest.mark.parametrize("name", ["PWD", "OLDPWD"])
def test_the_working_folder_is_no_secret(monkeypatch, name):
    """The shell's variable for it is spelled like a password."""
    monkeypatch.setenv(name, "/data/projects/crem")
    assert scrub("/data/projects/crem/work/eval/report.html") == "/data/projects/crem/work/eval/report.html"
    monkeypatch.setenv("DB_PWD", "/data/projects/crem")
    assert scrub("/data/projects/crem/work") == "***/work"
