"""One evaluation, killed again and again at random moments, then left to end: python killed.py KILLS TOKENS ARGUMENTS...

Every attempt is a process of its own, forked before torch has computed anything, and ended by SIGKILL once it has kept a few results more.
Prints {"kills", "kept": results found after each, "again": results that were there and were written a second time} as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from pipeline.evaluate import units
from pipeline.evaluate.__main__ import main


def attempt(arguments: list[str]) -> int:
    """Fork; returns the child's number."""
    child = os.fork()
    if not child:
        os._exit(main(arguments))
    return child


def kept(cache: Path) -> dict[str, int]:
    """{name: when it was written} of whole files."""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("*/*") if not path.name.startswith(".")}


def ended(child: int, seconds: float) -> bool:
    """Whether it has ended within the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.001)
    return False


def run(kills: int, arguments: list[str]) -> dict:
    cache = Path(arguments[arguments.index("--out") + 1]) / "cache"
    rng, found, again = random.Random(0), [], 0
    for _ in range(kills):
        before = kept(cache)
        child = attempt(arguments)
        while len(kept(cache)) <= len(before) + rng.randrange(2):
            if ended(child, 0.002):
                raise SystemExit("the evaluation ended before it was killed: give it more to do")
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after = kept(cache)
        again += sum(after.get(name) != written for name, written in before.items())
        found.append(len(after))
    last = attempt(arguments)
    _, status = os.waitpid(last, 0)
    again += sum(kept(cache).get(name) != written for name, written in after.items())
    return {"kills": len(found), "kept": found, "all": len(kept(cache)), "again": again, "status": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    units.EMBED_TOKENS, units.ANSWERS = int(sys.argv[2]), 1
    print(json.dumps(run(int(sys.argv[1]), sys.argv[3:])))
