"""The only file that talks to Ray: start it or join it, and have a function called on many items.

Without RAY_ADDRESS, Ray is started on this machine for this job alone: it listens on loopback, joins nothing and shares nothing, so any
number of jobs may start at the same moment. Whatever keeps a job waiting is said on standard error, once a minute.
"""

import os
import secrets
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

if not os.environ.get("RAY_ADDRESS"):
    # Ray's own switch for "this machine only", read at import: without it every one of its sockets listens on all interfaces.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray adds 15 to the niceness of its workers. Beside two busy processes two of them then got 0.4 to 1.0 CPU seconds in 15, and 2.7 to
    # 2.9 without it, measured; so what takes half a minute alone may make no progress for minutes. Whoever wants that types `nice`.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Seconds until a raylet that has not registered counts as dead, 30 by default: on a busy machine that is soon over.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError, RayTaskError

from data_prep.samples import DataError

MINUTE_S = 60.0
WORKER_MINUTES = 10
"""How long Ray on this machine may take to bring up its first worker."""
RETRIES = 5
"""How often an item is done again whose worker or node has died."""
LOST = (RayActorError, NodeDiedError, ObjectLostError)
"""An actor died, or its node did: with the work, or with a finished result. One of over 100 KB stays on the actor's node until it is
fetched, and an actor's results are not made again by Ray."""
FOR_PEOPLE = (DataError, PermissionError)
"""Raised by a worker, these are raised here as they were: messages for people, not Ray's stack around them."""

Item, Result = TypeVar("Item"), TypeVar("Result")


@contextmanager
def cluster(workers: int | None) -> Iterator[int]:
    """Join the cluster named by RAY_ADDRESS (as `ray job submit` sets it), else start Ray on this machine; yields the number of workers.

    Ray that runs in this process already is used as it is, and left running.

    Args:
        workers: one CPU each; None takes every CPU.

    Raises:
        DataError: Ray or its workers did not start on this machine.
    """
    if ray.is_initialized():
        yield _await_worker(workers)
        return
    environment = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"), "TOKENIZERS_PARALLELISM": "false"}
    if os.environ.get("RAY_ADDRESS"):
        # a variable that the submitted job sets as well is passed on with its value: no conflict
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        ray.init(log_to_driver=False, runtime_env={"env_vars": environment})
    else:
        root = str(Path(__file__).parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        _start_alone(workers, environment)
    try:
        yield _await_worker(workers)
    finally:
        ray.shutdown()


def as_finished(function: Callable[..., Result], items: list[Item], arguments: tuple, workers: int) -> Iterator[tuple[Item, Result]]:
    """(item, function(item, *arguments)) in the order in which they are done, at most `workers` at a time.

    `arguments` go to the object store once, whatever their size and however many items there are.

    A worker that dies, or whose node does, is replaced and its item done again, up to `RETRIES` times. Leaving early stops the items
    under way. No more than `workers` items and results exist at a time: memory does not grow with their number.

    Raises:
        DataError: the one that `function` raised, without the worker's stack: a message for people; or an item's workers all died.
        PermissionError: in the same way.
    """
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
    arguments = tuple(ray.put(argument) for argument in arguments)
    waiting = iter(items)
    running: dict[ray.ObjectRef, Item] = {}
    try:
        while True:
            for item in islice(waiting, workers - len(running)):
                running[task.remote(item, *arguments)] = item
            if not running:
                return
            done = _first(list(running), f"one of the {len(running)} items under way")
            item = running.pop(done)
            yield item, ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, FOR_PEOPLE):
            raise error.cause from None
        raise
    except RayError as error:  # the worker ended without a word: killed, out of memory, crashed; or its node did
        raise DataError(
            f"{item}: found its worker dead {RETRIES + 1} times ({type(error).__name__}), expected it to finish. Mostly memory ran out: "
            "take fewer --workers or smaller --max-pixels; what is finished is kept"
        ) from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def actors_as_finished(
    make: type, items: list[Item], arguments: tuple, workers: int, most: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """(item, make(*arguments).work(item)) in the order in which they are done: for work that needs something costly opened first.

    One actor on every GPU where the cluster has any, but not more than `most`; else `workers` of them on a CPU each. Each has one item at
    a time. In the place of an actor that dies, or whose node does, another is made, and its item done again, up to `RETRIES` times, even
    if it was done and only its result is lost. (Not by Ray's own retries: while it has not noticed that a node is gone, those are used up
    within seconds.)

    Raises:
        DataError: the one that `work` raised, without the worker's stack: a message for people; or an item's actors all died.
        PermissionError: in the same way.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))
    remote = ray.remote(**({"num_gpus": 1} if gpus else {"num_cpus": 1}))(make)
    waiting = deque(range(len(items)))
    tries: Counter[int] = Counter()
    running: dict[ray.ObjectRef, tuple[ray.actor.ActorHandle, int]] = {}

    def give(actor: ray.actor.ActorHandle) -> None:
        if waiting:
            number = waiting.popleft()
            running[actor.work.remote(items[number])] = (actor, number)
        else:
            ray.kill(actor)  # its place may be the only one left for the successor of one whose node has died

    try:
        for _ in range(min(min(gpus, most or gpus) or workers, len(items))):
            give(remote.remote(*arguments))
        while running:
            done = _first(list(running), f"one of the {len(running)} items under way")
            actor, number = running.pop(done)
            try:
                result = ray.get(done)
            except LOST as error:
                tries[number] += 1
                if tries[number] > RETRIES:
                    raise _given_up(error) from error
                ray.kill(actor)
                waiting.appendleft(number)
                give(remote.remote(*arguments))
                continue
            give(actor)
            yield items[number], result
    except RayTaskError as error:
        if isinstance(error.cause, FOR_PEOPLE):
            raise error.cause from None
        raise
    finally:
        for actor, _ in running.values():
            ray.kill(actor)


def _given_up(error: RayError) -> DataError:
    return DataError(
        f"found a worker that died again and again ({type(error).__name__}: {str(error).splitlines()[0]}), expected it to finish. "
        "Mostly memory ran out: take fewer --workers or smaller --max-pixels; what is finished is kept"
    )


def _start_alone(workers: int | None, environment: dict[str, str]) -> None:
    """Start a Ray that shares neither address nor token with another on this machine.

    Without "local", Ray joins what `ray start` has left running here. Its token it keeps in the home folder; two jobs that find none
    there write one each, and where processes of one job hold different ones, they refuse each other without a word, for ever. So this
    job's token lives in its environment, which nobody but the user can read.

    Raises:
        DataError: Ray did not start.
    """
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    options = {"include_dashboard": False, "log_to_driver": False, "runtime_env": {"env_vars": environment}}
    try:
        ray.init("local", num_cpus=workers, **options)
    except Exception as error:  # Ray raises bare Exceptions here
        raise DataError(
            f"Ray did not start on this machine ({type(error).__name__}: {error}); {_load()}. Its logs are in "
            "/tmp/ray/session_latest/logs. Start again when less is running; what is finished is kept"
        ) from error


def _await_worker(workers: int | None) -> int:
    """Wait for a first worker to answer: on a cluster as long as others hold its CPUs, on our own machine a limited time."""
    workers = workers or int(ray.cluster_resources().get("CPU", 1))
    probes = [ray.remote(num_cpus=1)(_answer).remote() for _ in range(workers)]  # as many: so that all start side by side
    _first(probes, "a first Ray worker", None if os.environ.get("RAY_ADDRESS") else WORKER_MINUTES)
    return workers


def _answer() -> None:
    """What a worker is asked first."""


def _first(references: list, awaited: str, limit: int | None = None) -> ray.ObjectRef:
    """The first reference that is ready; says every minute what it is waiting for.

    Raises:
        DataError: none after `limit` minutes.
    """
    for minute in count(1):
        if done := ray.wait(references, num_returns=1, timeout=MINUTE_S)[0]:
            return done[0]
        print(f"{minute} min without {awaited}; {_load()}", file=sys.stderr, flush=True)
        if minute == limit:
            raise DataError(
                f"found Ray running but waited {minute} minutes for {awaited}, expected it within seconds; {_load()}. "
                "Ray's logs are in /tmp/ray/session_latest/logs. Start again when less is running; what is finished is kept"
            )


def _load() -> str:
    cpus = ray.available_resources().get("CPU", 0) if ray.is_initialized() else 0
    return f"{cpus:.0f} CPUs free in Ray, load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
