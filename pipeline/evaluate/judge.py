"""Verdicts of a judge model: asked once each, kept on disk, a few at a time, and never guessed.

    OUT/judge/verdicts.jsonl    one line a verdict: {"key": digest of (prompt, model), "reply": "B"}

A reply that cannot be read is tried again, warmer, as the protocol has it; the last one is kept too, so that a rerun asks nothing twice. A
question that the server did not answer is not kept: a rerun asks it again. Invariant: what has no readable verdict is None, for the caller
to count; after `GIVE_UP` questions in a row without any answer the others are not asked.
"""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data_prep.samples import DataError
from pipeline.evaluate.endpoint import Endpoint, JudgeError
from pipeline.evaluate.judge_prompts import Inquiry

JOBS = 4
"""Questions under way at a time."""
ATTEMPTS = 4
"""How often one request is sent where its failure may pass."""
LONGEST_WAIT = 30.0
GIVE_UP = 8
_HELLO = Inquiry("Reply with the word ready.", lambda reply: reply.strip() or None, tries=1)


@dataclass
class Tally:
    """What happened: verdicts from disk, questions answered now (readably or not), and questions without an answer."""

    kept: int = 0
    answered: int = 0
    failed: int = 0
    first_failure: str = ""


class Judge:
    """A judge with a memory.

    Args:
        endpoint: the model that is asked.
        folder: where verdicts are kept.
        backoff: seconds before the second attempt at a request; twice that before the third, and so on.
    """

    def __init__(self, endpoint: Endpoint, folder: Path, backoff: float = 0.5):
        self.endpoint, self.path, self.backoff = endpoint, Path(folder) / "verdicts.jsonl", backoff
        self.tally = Tally()
        self._replies = _read(self.path)
        self._lock = threading.Lock()
        self._silent = 0

    @property
    def name(self) -> str:
        """The model that judges."""
        return self.endpoint.model

    def in_words(self) -> str:
        """Which model, and how often it was asked."""
        tally = self.tally
        failed = f", {tally.failed} without an answer (the first: {tally.first_failure})" if tally.failed else ""
        return f"{self.name}: {tally.answered} questions asked, {tally.kept} known from an earlier run{failed}"

    def check(self) -> None:
        """Ask for a sign of life, before any other work; nothing is asked where the server answered an earlier run in this folder.

        Raises:
            DataError: the server does not answer, or refuses.
        """
        if self._key(_HELLO) in self._replies:
            return
        try:
            self._keep(_HELLO, self._sent(_HELLO.prompt, 0.0))
        except JudgeError as error:
            raise DataError(
                f"--judge {self.endpoint.url}: found no answer of {self.name}: {error}; expected an OpenAI-compatible server. Start it "
                "or mend the address, or leave --judge out: then answers are matched exactly, and MMVet is not scored"
            ) from error

    def verdicts(self, inquiries: Sequence[Inquiry], title: str = "judge") -> list[object | None]:
        """What the judge says to each, in order: `Inquiry.read` of its reply, None where none is readable; equal ones are asked once."""
        distinct = {self._key(inquiry): inquiry for inquiry in inquiries}
        unasked = {key: inquiry for key, inquiry in distinct.items() if key not in self._replies}
        self.tally.kept += len(distinct) - len(unasked)
        with ThreadPoolExecutor(JOBS) as pool:
            list(tqdm(pool.map(self._ask, unasked.values()), total=len(unasked), desc=title, disable=None, leave=False))
        replies = [self._replies.get(self._key(inquiry)) for inquiry in inquiries]
        return [None if reply is None else inquiry.read(reply) for inquiry, reply in zip(inquiries, replies, strict=True)]

    def _ask(self, inquiry: Inquiry) -> None:
        if self._silent >= GIVE_UP:
            self._failed("not asked: the judge had stopped answering")
            return
        try:
            for number in range(inquiry.tries):
                reply = self._sent(inquiry.prompt, inquiry.warmer * number)
                if inquiry.read(reply) is not None:
                    break
        except JudgeError as error:
            self._failed(str(error))
            return
        self._keep(inquiry, reply)
        with self._lock:
            self.tally.answered += 1
            self._silent = 0

    def _sent(self, prompt: str, temperature: float) -> str:
        for attempt in range(ATTEMPTS):
            try:
                return self.endpoint.ask(prompt, temperature)
            except JudgeError as error:
                if not error.passing or attempt == ATTEMPTS - 1 or self._silent >= GIVE_UP:
                    raise
                time.sleep(min(LONGEST_WAIT, max(error.wait, self.backoff * 2**attempt)))
        raise AssertionError("the last attempt returns or raises")

    def _failed(self, message: str) -> None:
        with self._lock:
            self.tally.failed += 1
            self.tally.first_failure = self.tally.first_failure or message
            self._silent += 1

    def _keep(self, inquiry: Inquiry, reply: str) -> None:
        key = self._key(inquiry)
        with self._lock:
            self._replies[key] = reply
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if file.tell() and not _ends_whole(self.path):
                    file.write(b"\n")  # a run was killed within a line
                file.write(json.dumps({"key": key, "reply": reply}).encode() + b"\n")

    def _key(self, inquiry: Inquiry) -> str:
        return hashlib.sha256(json.dumps([inquiry.prompt, self.name]).encode()).hexdigest()


def _read(path: Path) -> dict[str, str]:
    """Kept replies by key; lines that a killed run left torn are passed over."""
    replies = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            replies[str(row["key"])] = str(row["reply"])
        except (ValueError, KeyError, TypeError):
            continue
    return replies


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
