"""Run a launcher under supervision: `python -m pipeline.supervise [options] deepspeed --hostfile hosts launchers/train.sh RECIPE ...`"""

import argparse
import os
import re
import secrets
import sys
import time

from data_prep.samples import DataError
from pipeline.supervise import command, environment
from pipeline.supervise.job import Job, Limits
from pipeline.supervise.outcome import MEANING, TRY_AGAIN, Status

LONGEST_BACKOFF_S = 300.0
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")


def main(argv: list[str]) -> int:
    """Run the job to its end, with as many new starts as allowed; returns a status of `outcome.MEANING`, or 128 + a signal's number."""
    at = _launch_at(argv)
    options, words = _parser().parse_args(argv[:at]), argv[at:]
    try:
        launch = command.check(words)
        _check(options, launch)
        env, left_out = environment.for_launcher(os.environ, launch.several_machines)
        if launch.several_machines:
            environment.check_words([*launch.trainer, str(launch.config.out.absolute())])
    except DataError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return Status.BAD_INPUT
    if left_out:
        names = ", ".join(left_out)
        _say(f"not passed on, for command lines of other machines would show them: {names} (MLflow reads ~/.mlflow/credentials)")
    return _starts(options, launch, env)


def _starts(options: argparse.Namespace, launch: command.Launch, env: dict[str, str]) -> int:
    """Start, and again as long as that may help and the budget lasts."""
    out = launch.config.out.absolute()
    name = options.job_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    for attempt in range(options.restarts + 1):
        again = attempt > 0 or options.resume_if_any
        folder = out / "jobs" / (f"{name}-again-{attempt}" if attempt else name)
        try:
            job = Job(folder, out / "result.json", Limits(options.grace_seconds, options.hang_minutes))
        except DataError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return Status.BAD_INPUT
        verdict = job.run(launch.command(folder, again), env)
        _say(f"job {folder.name}: status {verdict.status}: {verdict.reason}")
        left = options.restarts - attempt
        if job.asked is not None or verdict.status not in TRY_AGAIN or not left:
            return verdict.status
        wait = min(options.backoff_seconds * 2**attempt, LONGEST_BACKOFF_S)
        _say(f"starts again in {wait:g} s; {left - 1} more starts after that")
        time.sleep(wait)
    raise AssertionError("the last start returns")


def _check(options: argparse.Namespace, launch: command.Launch) -> None:
    """Rules between options.

    Raises:
        DataError: names the option.
    """
    if options.job_id and not JOB_ID.fullmatch(options.job_id):
        raise DataError(f"--job-id: found {options.job_id!r}, expected up to 80 letters, digits, - _ and .; nothing was started")
    if launch.one_of_several and not options.job_id:
        raise DataError(
            "found a launcher that starts one machine of several, expected --job-id, the same on all and new for each start (the "
            "scheduler's job number, for example); nothing was started"
        )
    if launch.one_of_several and options.restarts:
        raise DataError("found --restarts with a launcher on every machine: they would not start together. Let the scheduler start again")


def _parser() -> argparse.ArgumentParser:
    table = "\n".join(f"  {status:<8}{meaning}" for status, meaning in MEANING.items())
    parser = argparse.ArgumentParser(
        prog="bash launchers/supervise.sh",
        usage="%(prog)s [options] deepspeed|torchrun|bash [its options] launchers/train.sh [RECIPE] [...]",
        description=__doc__.splitlines()[0],
        epilog=f"exit statuses:\n{table}\n  128 + n ended by signal n before a checkpoint was saved",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--restarts", type=_number(int), default=0, help="new starts after lost or failed ranks, from the last checkpoint")
    parser.add_argument("--backoff-seconds", type=_number(float), default=10.0, help="wait before the first of them; doubles each time")
    parser.add_argument("--resume-if-any", action="store_true", help="go on from OUT's newest whole checkpoint, if any (for schedulers)")
    parser.add_argument("--grace-seconds", type=_number(float), default=120.0, help="for ranks to save after a signal, before SIGKILL")
    parser.add_argument("--hang-minutes", type=_number(float), default=20.0, help="without any rank advancing, the job is ended")
    parser.add_argument("--job-id", help="name of this start; needed where every machine has a supervisor")
    return parser


def _number(kind: type):
    def parse(text: str):
        value = kind(text)
        if not 0 <= value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"number from 0 ({kind.__name__})"
    return parse


def _launch_at(argv: list[str]) -> int:
    """Where the supervisor's own options end: at the first word that is neither an option nor an option's value."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 1 if argv[at] in ("-h", "--help", "--resume-if-any") or "=" in argv[at] else 2
    return min(at, len(argv))


def _say(line: str) -> None:
    print(f"supervisor: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
