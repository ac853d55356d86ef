"""What may leave this machine in a run's record: names as MLflow takes them, values as text, and no secret among them.

Pure but for one look: values of environment variables whose names say that they are secret are struck from texts.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

REDACTED = "***"
MAX_VALUE, MAX_KEY = 6000, 250
"""Characters of a value and of a name that MLflow takes."""


def clean_key(key: str) -> str:
    """A name as MLflow takes it: ASCII letters, digits and `_-. :/`, a plain relative path, at most 250 characters."""
    key = re.sub(r"[^\w\-. :/]", "_", str(key), flags=re.ASCII)
    key = "/".join(part for part in key.split("/") if part not in ("", ".", "..")) or "_"
    if len(key) <= MAX_KEY:
        return key
    return f"{key[: MAX_KEY - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf; models, mappings and lists that hold mappings are entered."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, BaseModel):
            value = value.model_dump()
        elif isinstance(value, (list, tuple)) and any(isinstance(item, (Mapping, BaseModel)) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


_ALWAYS_SECRET = {"password", "passwd", "pwd", "passphrase", "secret", "credential", "authorization", "apikey"}
_TEXT_SECRET = {"token", "key", "auth", "bearer", "cookie"}
_FOLDERS = {"PWD", "OLDPWD"}
"""The shell's own names for its working folders, spelled like a password."""
_NUMBERS = re.compile(r"[\[(]?[-+\d.,eE ]{0,60}[\])]?|None|True|False")
_SECRETS_IN_TEXT = (
    # one slash where a URL was taken for a path
    (re.compile(r"(:/{1,2})(?:[^\s/]*@|[^\s/@]*:\S*@)"), rf"\1{REDACTED}@"),
    (re.compile(r"(authorization[\"']?\s*[=:]\s*).+", re.IGNORECASE), rf"\1{REDACTED}"),
    (
        re.compile(
            r"((?:--[\w-]*(?:password|secret|token|key)\s+|"
            r"(?:password|passwd|passphrase|secret|token|credential|signature|(?:api|access|private)[_-]?key)"
            r"[\"']?\s*[=:]\s*)[\"']?)[^\s&\"',;]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(bearer\s+)\S+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL), REDACTED),
    (
        re.compile(
            r"\b(?:hf_\w{10,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w+|glpat-[\w-]+|A[KS]IA[0-9A-Z]{12,}|"
            r"xox[abprs]-[\w-]+|eyJ[\w-]+\.[\w-]+\.[\w-]*)"
        ),
        REDACTED,
    ),
)


def redact(name: str, value: Any) -> str:
    """The value as text, or `***` where the name says that it is a secret; secrets inside the text go too.

    Numbers under a name such as `max_tokens` are no secret; text under it is taken for one.
    """
    words = {word.lower().removesuffix("s") for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    if value and (words & _ALWAYS_SECRET or (words & _TEXT_SECRET and not _NUMBERS.fullmatch(str(value)))):
        return REDACTED
    if isinstance(value, (list, tuple, set)):
        return scrub(json.dumps([item if isinstance(item, (int, float)) else str(item) for item in value]))
    return scrub(str(value))


def scrub(text: str) -> str:
    """Text without URL credentials, `password=...`, bearer and well-known tokens, and secrets of the environment."""
    for pattern, replacement in _SECRETS_IN_TEXT:
        text = pattern.sub(replacement, text)
    for name, value in os.environ.items():
        if name not in _FOLDERS and len(value) >= 8 and value in text and redact(name, "text") == REDACTED:
            text = text.replace(value, REDACTED)
    return text


def cut(text: str) -> str:
    """The text, at most `MAX_VALUE` characters of it."""
    mark = "... (cut)"
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - len(mark)] + mark


def cell(name: str, value: Any) -> Any:
    """A table's cell: numbers as they are, anything else as redacted text."""
    return value if isinstance(value, (bool, int, float)) else redact(str(name), value)


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with clean names and redacted values."""
    return {clean_key(key): cut(redact(key, value)) for key, value in tags.items()}


def brief(error: BaseException) -> str:
    """An error in one line for the log, redacted."""
    return f"{type(error).__name__}: {scrub(str(error))[:300]}"
