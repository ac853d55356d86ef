"""The door to a judge: what is refused before anything is sent, what a failure says, and where the key goes."""

import pytest

from data_prep.samples import DataError
from pipeline.evaluate.endpoint import KEY_VARIABLE, Endpoint, JudgeError
from tests.pipeline.evaluate.judge_server import JudgeServer

KEY = "a-key-of-many-letters"


def test_asks_as_openai_does() -> None:
    with JudgeServer(lambda prompt: "B", KEY) as server:
        assert Endpoint(server.url, "wise", KEY).ask("which?", 0.5) == "B"
    assert server.asked == [{"model": "wise", "messages": [{"role": "user", "content": "which?"}], "temperature": 0.5, "max_tokens": 1024}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_sends_no_key_where_there_is_none() -> None:
    with JudgeServer(lambda prompt: "B") as server:
        Endpoint(server.url, "wise").ask("which?", 0.0)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("answer", "passing", "message"),
    [
        (500, True, "HTTP 500"),
        (429, True, "HTTP 429"),
        (503, True, "HTTP 503"),
        (400, False, "HTTP 400"),
        (404, False, "HTTP 404 .*is the address or the model right"),
        (302, False, "HTTP 302"),
        (307, False, "HTTP 307"),
        (b"<html>busy</html>", True, "no chat completion"),
        (b'{"choices": []}', True, "no chat completion"),
        (b'{"choices": [{"message": {"content": null}}]}', True, "without text"),
        (b'{"choices": [{"message": {"content": "' + b"x" * 2**20 + b'"}}]}', True, "more than 1048576 bytes"),
    ],
)
def test_failures_say_whether_they_pass(answer: int | bytes, passing: bool, message: str) -> None:
    with JudgeServer(lambda prompt: answer) as server, pytest.raises(JudgeError, match=message) as caught:
        Endpoint(server.url, "wise", KEY).ask("which?", 0.0)
    assert caught.value.passing == passing
    assert len(server.asked) == 1, "a redirect is not followed"


def test_a_wrong_key_is_named_but_not_shown() -> None:
    message = rf"401 .*is the key in {KEY_VARIABLE} right"
    with JudgeServer(lambda prompt: "B", KEY) as server, pytest.raises(JudgeError, match=message) as caught:
        Endpoint(server.url, "wise", "another-key").ask("which?", 0.0)
    assert not caught.value.passing
    assert "another-key" not in str(caught.value)


def test_a_slow_or_absent_server_passes() -> None:
    with JudgeServer(lambda prompt: "B", slow=1.0) as server, pytest.raises(JudgeError, match="timed out") as slow:
        Endpoint(server.url, "wise", timeout=0.1).ask("which?", 0.0)
    with pytest.raises(JudgeError, match="refused") as absent:
        Endpoint(server.url, "wise").ask("which?", 0.0)
    assert slow.value.passing and absent.value.passing


@pytest.mark.parametrize(
    ("url", "model", "key", "message"),
    [
        ("http://judge.example.org/v1", "m", KEY, "expected https, or a server on this machine"),
        ("http://10.0.0.7:8000/v1", "m", KEY, "expected https, or a server on this machine"),
        ("http://127.0.0.1.example.org/v1", "m", KEY, "expected https, or a server on this machine"),
        ("https://me:secret@judge.example.org/v1", "m", "", "found credentials"),
        ("https://judge.example.org/v1?key=secret", "m", "", "found credentials or a query"),
        ("ftp://judge.example.org", "m", "", "expected an address such as"),
        ("judge", "m", "", "expected an address such as"),
        ("http://[::1", "m", "", "an address that is none"),
        ("https://judge.example.org/v1", " ", "", "expected --judge-model NAME"),
        ("https://judge.example.org/v1", "m", "line\nbreak", "characters that no key has"),
    ],
)
def test_refused_before_anything_is_sent(url: str, model: str, key: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Endpoint(url, model, key)
    assert "secret" not in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1", "https://judge.example.org/v1"])
def test_where_a_key_may_go(url: str) -> None:
    assert KEY not in repr(Endpoint(url, "m", KEY))


def test_the_key_comes_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    found = Endpoint.from_environment("http://127.0.0.1:1/v1/", "m")
    assert (found.url, found.model, found.key) == ("http://127.0.0.1:1/v1", "m", KEY)
    monkeypatch.delenv(KEY_VARIABLE)
    assert Endpoint.from_environment("http://127.0.0.1:1/v1", "m").key == ""


def test_loopback_takes_no_proxy(monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with JudgeServer(lambda prompt: "B") as server:
        assert Endpoint(server.url, "wise").ask("which?", 0.0) == "B"
