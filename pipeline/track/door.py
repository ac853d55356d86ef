"""The one thread that talks to MLflow, and what waits for it.

Metrics and entries queue here until MLflow has taken them, in order. A failure that may pass leaves them queued; a
refusal that would only be repeated is given up, said and counted.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from pipeline.journal import Value
from pipeline.redact import brief
from pipeline.track.client import MAX_METRICS, apply, connect, drop_doubles, log_values, open_run, refused, set_tags, start_monitor
from pipeline.track.record import Entry, Record
from pipeline.track.settings import TrackSettings

log = logging.getLogger(__name__)

_FLUSH_S, _RETRY_S = 2.0, 15.0

MIN_METRICS = 20
"""What is sent at a time at least, where a slow server has not taken more within the time limit of a request."""


class Door(threading.Thread):
    """The background thread that talks to MLflow. `tried` is set once the first attempt to reach it is over."""

    def __init__(
        self,
        settings: TrackSettings,
        record: Record,
        resume_run_id: str | None,
        backlog: Sequence[Value],
    ) -> None:
        super().__init__(name="mlflow-door", daemon=True)
        self.run_id: str | None = None
        self.tried = threading.Event()
        self._settings, self._record, self._resume_run_id = settings, record, resume_run_id
        self._lock = threading.Condition()
        self._values: deque[Value] = deque(value for value in backlog if math.isfinite(value.value))
        self._entries: deque[Entry] = deque(record.to_send())
        self._refused = 0
        self._status: str | None = None
        self._known: set[tuple[str, int]] = set()
        self._client = self._monitor = None
        self._down = False
        self._batch = MAX_METRICS

    @property
    def unsent(self) -> int:
        with self._lock:
            return len(self._values) + len(self._entries) + self._refused

    def put_metrics(self, values: Iterator[Value]) -> None:
        with self._lock:
            self._values.extend(value for value in values if math.isfinite(value.value))

    def put(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)

    def close(self, status: str, patience: float) -> None:
        """One last attempt, waited for at most `patience` seconds; the thread is a daemon, so it keeps no process alive."""
        with self._lock:
            self._status = status
            self._lock.notify()
        self.join(patience)

    def run(self) -> None:
        """Send every few seconds; after a failure wait longer; once closed, one last attempt."""
        while True:
            closing = self._status is not None
            try:
                if self.run_id is None:
                    self._connect()
                self._send()
                if closing:
                    self._end()
                self._down = False
            except Exception as error:  # the server's trouble must not become the training's
                if not self._down:
                    log.warning("MLflow is out of reach, going on without it: %s", brief(error))
                self._down = True
            self.tried.set()
            if closing:
                return
            with self._lock:
                self._lock.wait_for(lambda: self._status is not None, _RETRY_S if self._down else _FLUSH_S)

    def _connect(self) -> None:
        self._client = connect(self._settings.uri)
        run = open_run(self._client, self._settings, self._record, self._resume_run_id)
        if not run.created:
            self._client.update_run(run.run_id, status="RUNNING")
            set_tags(self._client, run.run_id, self._record.start.values["tags"])
        self._known, self.run_id = run.known, run.run_id
        if self._settings.system_metrics:
            self._monitor = start_monitor(run.run_id, self._settings.uri, resumed=not run.created)

    def _send(self) -> None:
        while batch := self._peek(self._values, self._batch):
            new = [value for value in batch if (value.key, value.step) not in self._known]
            limit, self._batch = self._batch, max(MIN_METRICS, self._batch // 4)  # if this fails, less is tried
            self._attempt(partial(log_values, self._client, self.run_id, new), len(new))
            self._batch = min(MAX_METRICS, limit * 2)
            self._pop(self._values, len(batch))
        while entries := self._peek(self._entries, 1):
            self._attempt(partial(apply, self._client, self.run_id, entries[0], self._record.run_dir), 1)
            self._pop(self._entries, 1)

    def _attempt(self, call: Callable[[], Any], worth: int) -> None:
        """Make a call; one that can never succeed is given up and counted, any other failure is raised: it may pass."""
        try:
            call()
        except Exception as error:
            if not refused(error):
                raise
            log.warning("MLflow refused part of the record: %s", brief(error))
            with self._lock:
                self._refused += worth

    def _peek(self, queue: deque, count: int) -> list:
        with self._lock:
            return list(islice(queue, count))

    def _pop(self, queue: deque, count: int) -> None:
        with self._lock:
            for _ in range(count):
                queue.popleft()

    def _end(self) -> None:
        if self._monitor:
            self._monitor.finish()
        self._client.set_terminated(self.run_id, status=self._status)
        drop_doubles(self._client, self.run_id, self._record)
