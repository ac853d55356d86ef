"""A trainer that trains nothing, for tests of what starts and watches trainers: it reports, waits and ends as OUT/plan.json says.

    {"steps": 5, "seconds": 0.02, "end": [0, 2], "stubborn": true, "mute": [1]}

"end": exit status by rank; "stubborn": SIGTERM is not heard; "mute": ranks that end without a word; "foreign": result.json names another
job; "fail_first": raise in the first start only. SIGTERM ends it with 4, as the trainer; SIGUSR1 is noted in OUT/saved-RANK.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))
from pipeline import heartbeat, lifeline


def main(argv: list[str]) -> int:
    lifeline.hold()
    rank, out = int(os.environ["RANK"]), Path(argv[argv.index("--out") + 1])
    job = Path(next(word for word in argv if word.startswith("--job=")).removeprefix("--job="))
    plan = json.loads((out / "plan.json").read_text())
    asked = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if plan.get("stubborn") else lambda *_: asked.append(1))
    signal.signal(signal.SIGUSR1, lambda *_: (out / f"saved-{rank}").touch())
    heart = heartbeat.begin(job, rank)
    (out / f"words-{rank}").write_text(" ".join(argv))
    status = plan.get("end", [0, 0])[rank]
    for number in range(plan.get("steps", 3)):
        heartbeat.beat("step", number + 1)
        time.sleep(plan.get("seconds", 0.02))
        if asked:
            status = 4
            break
    if plan.get("fail_first") and "again" not in job.name:
        (out / "checkpoints" / "step-00000001").mkdir(parents=True, exist_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if rank in plan.get("mute", []):
        os._exit(0)
    if rank == 0 and status in (0, 3) and plan.get("result", True):
        (out / "result.json").write_text(json.dumps({"status": status, "job": "another" if plan.get("foreign") else heartbeat.job()}))
    heart.end(status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
