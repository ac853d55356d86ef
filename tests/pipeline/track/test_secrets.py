"""Fifty planted secrets, each another form and another word: none may be in the store, on disk or in the log."""

import logging
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from pydantic import ValidationError

from pipeline.redact import flatten
from pipeline.track import Tracker, TrackSettings
from pipeline.track.sync import sync

Start = Callable[..., Tracker]

FORMS = [
    {"password": "@"},
    {"db": {"db_password": "@"}},
    {"hf_token": "@"},
    {"secrets": {"value": "@"}},
    {"apiKey": "@"},
    {"api_keys": ["@", "x"]},
    {"AWS_SECRET_ACCESS_KEY": "@"},
    {"keys": {"a": "@"}},
    {"headers": {"Authorization": "Basic @"}},
    {"WANDB_API_KEY": "@"},
    {"MLFLOW_TRACKING_PASSWORD": "@"},
    {"accessToken": "@"},
    {"login": {"pwd": "@"}},
    {"passphrase": "@"},
    {"credentials": {"user": "@"}},
    {"cookie": "session @"},
    {"ssh_private_key": "@"},
    {"auth": {"bearer": "@"}},
    {"uri": "postgresql://user:@@host/db"},
    {"uri": "https://@@host/path"},
    {"uri": "https://user:a/b@@host/path"},
    {"uri": "mysql+pymysql://user:@@host/db"},
    {"uri": "s3://id:@@bucket/path"},
    {"url": "https://host/x?token=@&page=2"},
    {"url": "https://host/x?api_key=@"},
    {"url": "https://host/x?X-Amz-Signature=@"},
    {"path": "/data/token=@/shards"},
    {"note": "Authorization: Bearer @"},
    {"note": "use bearer @ here"},
    {"note": "curl -H 'Authorization: Basic @' host"},
    {"command": "train --hf-token @ --lr 1"},
    {"command": "train --password=@"},
    {"command": "train --api-key @"},
    {"command": "HF_TOKEN=@ python train.py"},
    {"json": '{"client_secret": "@"}'},
    {"json": "{'password': '@'}"},
    {"yaml": "secret: @"},
    {"ini": "credential = @"},
    {"list": ["fine", "password=@"]},
    {"text": "hf_@abcdefghij"},
    {"text": "ghp_@abcdefghijklmnop"},
    {"text": "github_pat_@"},
    {"text": "glpat-@"},
    {"text": "sk-@abcdefghijklmnop"},
    {"text": "xoxb-@"},
    {"text": "AKIA@0123456789"},
    {"text": "eyJhbGci@.eyJzdWIi.c2ln"},
    {"text": "-----BEGIN RSA PRIVATE KEY-----\n@\n-----END"},
    {"text": "from the environment: env-@-value"},
    {"error": "RuntimeError: could not log in with token: @"},
]


def canary(number: int) -> str:
    return f"CANARY{number:02}Q"


def plant(form: object, word: str) -> object:
    """The form with its first @ (the one that is no URL's) replaced by the word."""
    if isinstance(form, dict):
        return {key: plant(value, word) for key, value in form.items()}
    if isinstance(form, list):
        return [plant(value, word) for value in form]
    return form.replace("@", word, 1)


LEAKS = [plant(form, canary(number)) for number, form in enumerate(FORMS)]


def test_there_are_fifty() -> None:
    assert len(LEAKS) == 50
    assert all(canary(number) in str(leak) for number, leak in enumerate(LEAKS))


def test_none_is_found(
    start: Start, store: TrackSettings, client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """Each as a param, a tag, a table cell, and where it may be one an artifact's path, which MLflow's exceptions name."""
    monkeypatch.setenv("PLANTED_TOKEN", f"env-{canary(48)}-value")
    caplog.set_level(logging.DEBUG)
    run_dir = tmp_path / "run"
    with start(run_dir, params=dict(enumerate(LEAKS))) as tracker:
        for number, leak in enumerate(LEAKS):
            ((key, value),) = flatten(leak)
            tracker.tags({f"t{number}.{key}": str(value)})
            tracker.table(f"t{number}", [{key: str(value)}])
            if key in ("path", "text", "command", "note", "uri", "url"):
                tracker.artifact(run_dir / str(value))  # there is none: MLflow's refusal names it
        tracker.metrics(0, {"loss": 1})
    for refusal in sync(run_dir).refusals:  # and what a slow machine had no time for
        logging.getLogger("test").warning(refusal)
    run = client.get_run(tracker.run_id)
    assert len(run.data.params) >= len(LEAKS)
    assert len([key for key in run.data.tags if key.startswith("t")]) == len(LEAKS)
    root = Path(store.uri.removeprefix("sqlite:///")).parents[3]
    files = [path for path in (*root.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert {"metrics.jsonl", "record.jsonl", "mlflow.db"} <= {path.name for path in files} and len(files) > len(LEAKS)
    held = b"".join(path.read_bytes() for path in files) + caplog.text.encode()
    assert [leak for number, leak in enumerate(LEAKS) if canary(number).encode() in held] == []
    assert "not recorded, for its path seems to hold a secret" in caplog.text


def test_a_uri_with_credentials_is_refused_and_not_repeated() -> None:
    for uri in ("http://me:CANARY@host", "https://CANARY@host", "https://me:CANARY@host:5000/x", "postgresql://me:CANARY@host/db"):
        with pytest.raises(ValidationError, match="uri holds credentials") as error:
            TrackSettings(uri=uri)
        assert "CANARY" not in str(error.value)
    for uri in ("postgresql://me@host/db", "sqlite:///a@b/mlflow.db", "https://host:5000/x@y"):
        assert TrackSettings(uri=uri).uri == uri


def test_nor_on_the_command_line(capsys) -> None:
    from pipeline.train.cli import parse

    with pytest.raises(SystemExit):
        parse(["tiny", "--track.uri", "https://me:CANARY@host"])
    assert "CANARY" not in "".join(capsys.readouterr())


def test_settings_are_strict() -> None:
    with pytest.raises(ValidationError):
        TrackSettings(url="x")
    assert all(field.description for field in TrackSettings.model_fields.values())
