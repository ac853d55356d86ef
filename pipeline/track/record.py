"""What a run's record holds beside metrics, on local disk: `record.jsonl`, a JSON line an entry, written before MLflow hears of it.

    {"kind": "run", "settings": {"uri": "..."}, "name": "train-tiny", "tags": {"crem.kind": "training"}}
    {"kind": "run_id", "run_id": "4f1c..."}
    {"kind": "params", "params": {"optim.clip": "1.0"}}
    {"kind": "artifact", "path": "config.json", "folder": null}
    {"kind": "status", "status": "FINISHED"}

Invariants: every value has been redacted before; entries can be sent again, in order, without harm, which is how a resume and `sync` make
up for what a dead server missed; a line that a crash left torn is passed over.
"""

import json
import re
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.track.settings import TrackSettings

FILE = "record.jsonl"

MARK = "crem.record"
"""The tag whose value no other record has."""

SENT = ("params", "tags", "artifact", "table")
"""Kinds of entries that MLflow is sent."""


@dataclass(frozen=True)
class Entry:
    """One thing asked of MLflow: its kind, and that kind's values, JSON-ready."""

    kind: str
    values: dict[str, Any]


class Record:
    """A run's entries, in the order they were made. Appending is safe from several threads."""

    def __init__(self, run_dir: Path, entries: list[Entry]) -> None:
        self.run_dir, self.entries = run_dir, entries
        self._lock = threading.Lock()

    @classmethod
    def open(cls, run_dir: Path, fresh: bool = False) -> Self:
        """The record in `run_dir`; an empty one where there is none. `fresh` empties it: another run is about to begin there."""
        path = run_dir / FILE
        if fresh:
            path.unlink(missing_ok=True)
        lines = path.read_bytes().splitlines() if path.exists() else []
        if lines and not path.read_bytes().endswith(b"\n"):
            with open(path, "ab") as file:  # or the next entry would be glued to the torn one
                file.write(b"\n")
        return cls(run_dir, [entry for line in lines if (entry := _parse(line))])

    def append(self, entry: Entry) -> Entry:
        """Write one entry; it is the operating system's when this returns."""
        line = json.dumps({"kind": entry.kind} | entry.values) + "\n"
        with self._lock:
            self.entries.append(entry)
            with open(self.run_dir / FILE, "a", encoding="utf-8") as file:
                file.write(line)
        return entry

    def begin(self, settings: TrackSettings, name: str, tags: dict[str, str]) -> None:
        """What is needed to create the run, once it can be created; a tag tells the run that was created unnoticed (`client.new_run`)."""
        mark = {MARK: self.start.values["tags"][MARK] if self.start else uuid.uuid4().hex}
        self.append(Entry("run", {"settings": _anywhere(settings).model_dump(mode="json"), "name": name, "tags": tags | mark}))

    @property
    def start(self) -> Entry | None:
        """The latest `run` entry."""
        return self._latest("run")

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, where it was ever reached."""
        found = self._latest("run_id")
        return found.values["run_id"] if found else None

    @property
    def status(self) -> str | None:
        """How the run ended; None where it has not, or without a word."""
        last = max((i for i, entry in enumerate(self.entries) if entry.kind == "run"), default=0)
        return next((entry.values["status"] for entry in reversed(self.entries[last:]) if entry.kind == "status"), None)

    def to_send(self) -> list[Entry]:
        """Entries that MLflow is sent."""
        return [entry for entry in self.entries if entry.kind in SENT]

    def _latest(self, kind: str) -> Entry | None:
        return next((entry for entry in reversed(self.entries) if entry.kind == kind), None)


def _anywhere(settings: TrackSettings) -> TrackSettings:
    """The same settings with whole paths, so that they mean the same from any working directory."""
    uri, artifacts = settings.uri, settings.artifacts
    if file := re.match(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(.*)", uri):
        uri = f"{file[1]}{Path(file[2]).resolve()}{file[3]}"
    if "://" not in artifacts:
        artifacts = str(Path(artifacts).resolve())
    return settings.model_copy(update={"uri": uri, "artifacts": artifacts})


def _parse(line: bytes) -> Entry | None:
    try:
        values = json.loads(line)
        return Entry(values.pop("kind"), values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
