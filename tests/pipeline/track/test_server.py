"""A real MLflow server behind a door that can be shut: what an outage costs a training, and what is missing after a sync (nothing).

Each fault (refused connections, errors 500, answers that take 30 s) comes at the start, in the middle and at the end of a run.
"""

import http.client
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from pipeline.ports import free_port
from pipeline.track import Tracker, TrackSettings
from pipeline.track.sync import sync

pytestmark = pytest.mark.slow
Start = Callable[..., Tracker]
STEPS = 200
FAULTS = ("refused", "500", "slow")


class Door(ThreadingHTTPServer):
    """Hands requests on to the server at `port`, or does to them what `fault` says; `hits` counts requests that met a fault."""

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port, self.fault, self.hits, self.over = port, "", 0, threading.Event()

    def handle_error(self, request, address) -> None:
        """A caller that has given up is no error here."""


class Handler(BaseHTTPRequestHandler):
    def _handle(self) -> None:
        if self.server.fault:
            self.server.hits += 1
        if self.server.fault == "refused":
            self.connection.close()
            return
        if self.server.fault == "500":
            self.send_response(500)
            self.end_headers()
            return
        if self.server.fault == "slow":
            self.server.over.wait(30)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        inner = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        inner.request(self.command, self.path, body, headers)
        answer = inner.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    root, port = tmp_path_factory.mktemp("server"), free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{root}/mlflow.db"]
    with open(root / "log", "wb") as log:
        command = [sys.executable, "-m", "mlflow", *words, "--artifacts-destination", str(root / "artifacts")]
        alone = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # no helpers: only the store is asked
        server = subprocess.Popen(command, env=alone, stdout=log, stderr=log, cwd=root, start_new_session=True)
    door = Door(port)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        _wait_for(port, server)
        yield door
    finally:
        door.shutdown()
        os.killpg(server.pid, 15)
        server.wait(60)


def _wait_for(port: int, server: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the MLflow server did not start")


@pytest.mark.parametrize("when", ["start", "middle", "end"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_costs_nothing_and_loses_nothing(
    start: Start, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, when: str
) -> None:
    settings = TrackSettings(uri=f"http://127.0.0.1:{door.server_address[1]}", system_metrics=False)
    door.fault, door.hits = fault if when == "start" else "", 0
    door.over.clear()
    began = time.monotonic()
    tracker = start(tmp_path, settings=settings, params={"lr": 1}, tags={"kind": "train"})
    started, spent = time.monotonic() - began, 0.0
    for step in range(STEPS):
        if step == STEPS // 2:
            time.sleep(3)  # the first half is sent, where the server is there
            door.fault = fault if when == "middle" else door.fault
        began = time.perf_counter()
        tracker.metrics(step, {f"m{i}": step + i for i in range(4)})
        spent += time.perf_counter() - began
    (tmp_path / "note.txt").write_text("hello")
    tracker.artifact(tmp_path / "note.txt")
    time.sleep(3)
    if when == "end":
        tracker.metrics(STEPS, {"m0": 1.0})
        door.fault = fault
    began = time.monotonic()
    tracker.finish()
    ended = time.monotonic() - began
    print(f"\n{fault} at {when}: start {started:.1f} s, {spent / STEPS * 1e3:.2f} ms a step, exit {ended:.1f} s, unsent {tracker.unsent}")
    assert door.hits, "no fault was met"
    for thread in threading.enumerate():
        if thread.name == "mlflow-door":  # ends with the process; this one goes on, and must not hear it once the fault is over
            thread.join(60)
    assert started < 20 and ended < 8  # 5 and 4.5 s on a machine with nothing else to do
    door.fault = ""
    door.over.set()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # as the command sets it
    first, second = sync(tmp_path), sync(tmp_path)
    assert not first.refusals and second.values == 0 and not second.created
    client = mlflow.MlflowClient(settings.uri)
    expected = Counter(range(STEPS + (when == "end")))
    assert Counter(m.step for m in client.get_metric_history(first.run_id, "m0")) == expected
    assert Counter(m.step for m in client.get_metric_history(first.run_id, "m3")) == Counter(range(STEPS))
    run = client.get_run(first.run_id)
    assert (run.info.status, run.data.params, run.data.tags["kind"]) == ("FINISHED", {"lr": "1"}, "train")
    assert [file.path for file in client.list_artifacts(first.run_id)] == ["note.txt"]
    mark = run.data.tags["crem.record"]
    assert len(client.search_runs([run.info.experiment_id], f"tags.`crem.record` = '{mark}'")) == 1, "a slow answer made no second run"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_process_ends_soon_after_an_outage(door: Door, tmp_path: Path, fault: str) -> None:
    """The monitor of system metrics included; from the last line of the program to the end of its process."""
    code = f"""
import time
from pathlib import Path
from pipeline.track import Tracker, TrackSettings
with Tracker.start(TrackSettings(uri="http://127.0.0.1:{door.server_address[1]}"), "x", Path({str(tmp_path)!r}), {{}}, {{}}) as tracker:
    while not tracker.run_id:
        time.sleep(0.1)
    print("running", flush=True)
    input()
    tracker.metrics(0, {{"loss": 1}})
    print(time.time(), flush=True)
"""
    door.fault, door.hits = "", 0
    door.over.clear()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)
    assert process.stdout.readline() == "running\n"
    door.fault = fault
    output, errors = process.communicate("\n", timeout=120)
    seconds = time.time() - float(output)
    door.over.set()
    print(f"\n{fault}: {seconds:.1f} s from the last line to the end of the process")
    assert door.hits and process.returncode == 0, errors
    assert seconds < 10  # 5 on a machine with nothing else to do
