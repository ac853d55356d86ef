"""One door to a judge model: the chat completions of any OpenAI-compatible server, by the standard library alone.

Invariants: the key goes to the named server only (no redirects, no key over plain http to another machine, no proxy for loopback) and into
no message; a reply is bounded in size and time; a failure says whether trying again can help.
"""

import http.client
import ipaddress
import json
import math
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from data_prep.samples import DataError
from pipeline.redact import REDACTED, scrub

KEY_VARIABLE = "CREM_JUDGE_KEY"
"""The environment variable that holds the key, where the server wants one."""
MAX_REPLY = 2**20
"""Bytes of a reply that are read."""
MAX_TOKENS = 1024
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}


class JudgeError(Exception):
    """A question was not answered. `passing`: trying again can help; `wait`: seconds that the server asked for."""

    def __init__(self, message: str, passing: bool, wait: float = 0.0):
        super().__init__(message)
        self.passing, self.wait = passing, wait


@dataclass(frozen=True)
class Endpoint:
    """A model of a server. `url` ends before /chat/completions, usually in /v1; `timeout` in seconds.

    Raises:
        DataError: no usable address, credentials in it, or a key that would travel readable to another machine.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise DataError(f"--judge: found an address that is none ({error}); expected e.g. http://127.0.0.1:8000/v1") from error
        if parts.username or parts.password or parts.query or parts.fragment:
            raise DataError(
                f"--judge: found credentials or a query in the address; expected e.g. https://host/v1. Put the key into {KEY_VARIABLE}"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise DataError(f"--judge: found {scrub(self.url)}; expected an address such as http://127.0.0.1:8000/v1 or https://host/v1")
        if not self.model.strip():
            raise DataError("--judge: found no model; expected --judge-model NAME, as the server calls it")
        if self.key and parts.scheme == "http" and not _loopback(host):
            raise DataError(
                f"--judge: found http://{host} and a key in {KEY_VARIABLE}; expected https, or a server on this machine: anybody on the "
                f"way could read the key. Use https://, or unset {KEY_VARIABLE} if the server wants none"
            )
        if not self.key.isascii() or not self.key.isprintable():
            raise DataError(f"{KEY_VARIABLE}: found characters that no key has (a line break?); expected printable ASCII")

    @classmethod
    def from_environment(cls, url: str, model: str | None, timeout: float = 60.0) -> "Endpoint":
        """An endpoint with the key of `KEY_VARIABLE`, if that is set."""
        return cls(url.rstrip("/"), model or "", os.environ.get(KEY_VARIABLE, "").strip(), timeout)

    def ask(self, prompt: str, temperature: float) -> str:
        """The model's reply to one message.

        Raises:
            JudgeError: no reply, or one that is no chat completion.
        """
        content = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": MAX_TOKENS,
        }
        headers = {"Content-Type": "application/json", "User-Agent": "crem-evaluate"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(content).encode(), headers, method="POST")
        try:
            with self._opener().open(request, timeout=self.timeout) as response:
                body = _read(response, time.monotonic() + self.timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, no TLS, half a reply
            raise JudgeError(self._safe(f"{type(error).__name__}: {error}"), passing=True) from None
        return _content(body)

    def _opener(self) -> urllib.request.OpenerDirector:
        direct = [urllib.request.ProxyHandler({})] if _loopback(urlsplit(self.url).hostname or "") else []
        return urllib.request.build_opener(_NoRedirect, *direct)

    def _refusal(self, error: urllib.error.HTTPError) -> JudgeError:
        hint = {
            401: f"; is the key in {KEY_VARIABLE} right?",
            403: f"; is the key in {KEY_VARIABLE} right?",
            404: "; is the address or the model right?",
        }
        message = self._safe(f"HTTP {error.code} {error.reason}{hint.get(error.code, '')}")
        return JudgeError(message, error.code in _PASSING, _seconds(error.headers.get("Retry-After")))

    def _safe(self, text: str) -> str:
        text = scrub(text)
        return (text.replace(self.key, REDACTED) if self.key else text)[:300]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key, and what it points at was not named: it is an error like any other."""

    def redirect_request(self, *args: object) -> None:
        return None


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds(header: str | None) -> float:
    try:
        value = float(header or 0)
    except ValueError:  # a date
        return 0.0
    return max(0.0, value) if math.isfinite(value) else 0.0


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, if it is neither too large nor, dripping, too slow."""
    body = b""
    while chunk := response.read1(65536):
        body += chunk
        if len(body) > MAX_REPLY:
            raise JudgeError(f"found a reply of more than {MAX_REPLY} bytes", passing=True)
        if time.monotonic() > deadline:
            raise JudgeError("found a reply that did not end in time", passing=True)
    return body


def _content(body: bytes) -> str:
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise JudgeError("found a reply that is no chat completion (choices[0].message.content)", passing=True) from None
    if not isinstance(text, str):
        raise JudgeError("found a reply without text", passing=True)
    return text
