"""Score one exported checkpoint: `python -m pipeline.evaluate CHECKPOINT [--mmeb FOLDER] [--benchmarks PATH ...]`.

Retrieval (MMEB) and comprehension (VLM benchmarks, native and compressed) of the same weights, one report, with heat maps of the chorus'
attention over a few query images; the result is linked in MLflow to the run that trained them. A checkpoint without chorus tokens is a
baseline: last-token pooling, native answers.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from data_prep.command import exit_status
from data_prep.encode import Encoder, EncodeSettings
from data_prep.lock import hold
from data_prep.place import absolute_out
from data_prep.samples import DataError
from data_prep.shards import make_folder
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.mmeb_eval import load_sets
from pipeline.allocator import keep_freed_memory
from pipeline.evaluate import inputs, plots, report
from pipeline.evaluate.base import read_base
from pipeline.evaluate.crew import Crew
from pipeline.evaluate.endpoint import KEY_VARIABLE, Endpoint
from pipeline.evaluate.evaluation import score
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.page.render import write_report
from pipeline.track import Tracker, TrackSettings, log_to_run, scored_run_tags

EMBEDDED = Path("work/data")
"""What is scored where nothing is named: the quickstart's data."""


def main(argv: list[str] | None = None) -> int:
    """Run the evaluation; returns the exit status (2: bad input, said so on standard error)."""
    args = _parser().parse_args(argv)
    keep_freed_memory()
    return exit_status(run, args)


def run(args: argparse.Namespace) -> int:
    """Read all inputs first, then score, report and track."""
    if not args.mmeb and not args.benchmarks:
        args.mmeb, args.benchmarks = EMBEDDED / "MMEB-eval", [EMBEDDED / "benchmarks"]
    args.mmeb, args.image_root = (path and path.absolute() for path in (args.mmeb, args.image_root))  # workers may stand in another folder
    sets = load_sets(args.mmeb, args.image_root) if args.mmeb else []
    benchmarks = [load_benchmark(path.absolute()) for path in _tsv_files(args.benchmarks)]
    inputs.check(sets, benchmarks)
    base = read_base(args.base) if args.base else None
    settings = EncodeSettings(min_pixels=args.min_pixels, max_pixels=args.max_pixels, max_tokens=32768)
    encoder = Encoder(args.checkpoint, settings, baseline=True).shortened(args.k)
    origin = _origin(args.checkpoint)
    out = absolute_out(args.out or Path("work/eval") / _name(args, encoder, origin))
    judge = _judge(args, out)
    crew = Crew(args.workers, args.batch)
    make_folder(out)
    with hold(out, out / ".lock", "evaluate"):
        _check_owner(out, args.checkpoint)
        result = score(args.checkpoint, encoder, sets, benchmarks, out, judge, args.max_new_tokens, crew, args.cache)
        result = replace(result, base=base)
        files = report.write(result, out) + plots.draw(result, out / "plots") + [out / "plots" / "attention"] * bool(result.attention)
        files.append(write_report(result, out, sets, benchmarks))
        print(report.console(result))
        _track(args, result, out, origin)
    print(f"scores, plots and every prediction: {out}\n" + "\n".join(f"  {path}" for path in files))
    return 0


def _origin(checkpoint: str) -> dict:
    """What an export says of the run that trained it (crem.json); nothing for any other checkpoint."""
    path = Path(checkpoint) / "crem.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _check_owner(out: Path, checkpoint: str) -> None:
    """Refuse a folder that holds another checkpoint's scores; the same one may be scored there again.

    Raises:
        DataError: names both.
    """
    try:
        found = str(json.loads((out / "scores.json").read_text(encoding="utf-8"))["facts"]["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError):  # no scores of ours
        return
    if found != checkpoint and Path(found).resolve() != Path(checkpoint).resolve():
        raise DataError(
            f"{out}: found the scores of {found}, expected those of {checkpoint} or none; nothing was computed, and they are as they were. "
            "Name another folder with --out"
        )


def _name(args: argparse.Namespace, encoder: Encoder, origin: dict) -> str:
    """The evaluation's folder in work/eval: no two exports of a run, and no two k, share one."""
    folder = Path(args.checkpoint).resolve()
    run = (folder if encoder.baseline else folder.parent).name
    return run + "-ema" * bool(origin.get("averaged")) + ("" if args.k is None else f"-k{args.k}")


def _judge(args: argparse.Namespace, out: Path) -> Judge | None:
    """The judge that was asked for, once it has given a sign of life."""
    if not args.judge:
        if args.judge_model:
            raise DataError("--judge-model: found a model without a server; expected --judge http://127.0.0.1:8000/v1 too, or neither")
        return None
    judge = Judge(Endpoint.from_environment(args.judge, args.judge_model), out / "judge")
    judge.check()
    return judge


def _track(args: argparse.Namespace, result: report.Report, out: Path, origin: dict) -> None:
    """Log the evaluation as a child of the run that trained the checkpoint, and the headline on that run itself.

    The run's own headline is that of the weights it trained, with the whole chorus: an average of them, or fewer tokens, have scores of
    their own.
    """
    settings = TrackSettings(**{k: v for k, v in (("uri", args.track_uri), ("artifacts", args.track_artifacts)) if v})
    trained, averaged = origin.get("tracked_run"), bool(origin.get("averaged"))
    tags = {"crem.kind": "evaluation"} | (scored_run_tags(trained) if trained else {}) | ({"crem.averaged": "true"} if averaged else {})
    params = {"checkpoint": args.checkpoint, "mmeb": args.mmeb, "benchmarks": args.benchmarks, "max_pixels": args.max_pixels}
    params |= {"chorus_k": result.facts.get("pooling") or args.k or "all", "judge_model": args.judge_model, "base": args.base}
    scores = report.headline(result)
    with Tracker.start(settings.model_copy(update={"system_metrics": False}), "evaluate", out, params, tags) as tracker:
        tracker.metrics(0, scores)
        tracker.table("retrieval", [vars(row) for row in result.retrieval])
        tracker.table("answers", [{k: v for k, v in vars(row).items() if k not in ("detail", "left_out")} for row in result.answers])
        for folder in ("plots", "predictions"):
            tracker.artifact(out / folder, folder)
        for name in ("scores.json", "scores.md", "report.html"):
            tracker.artifact(out / name)
    if trained and args.k is None and not averaged:
        log_to_run(settings.uri, trained, scores)


def _tsv_files(paths: list[Path]) -> list[Path]:
    out = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: found no such file or folder; expected VLMEvalKit TSV files")
        found = sorted(path.glob("*.tsv")) if path.is_dir() else [path]
        if not found:
            raise DataError(f"{path}: found no .tsv file in this folder; expected VLMEvalKit TSV files")
        out += found
    return out


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 1 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bash launchers/evaluate.sh", allow_abbrev=False, description=__doc__)
    parser.add_argument("checkpoint", help="an exported folder, or any checkpoint: one without chorus tokens is scored as a baseline")
    parser.add_argument("--mmeb", type=Path, help="folder of MMEB-eval sets")
    parser.add_argument("--image-root", type=Path, help="folder the MMEB image paths start from, if not the data's own")
    parser.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="VLMEvalKit TSV files, or folders of them")
    parser.add_argument("--judge", help="OpenAI-compatible server of a judge, e.g. http://127.0.0.1:8000/v1; its key: " + KEY_VARIABLE)
    parser.add_argument("--judge-model", help="the judging model, as the server calls it")
    parser.add_argument("--base", type=Path, help="scores.json (or its folder) of the untouched checkpoint: adds the difference to it")
    parser.add_argument("--k", type=int, help="chorus tokens used, of those the checkpoint has (default: all)")
    parser.add_argument("--out", type=Path, help="folder for scores and predictions (default: work/eval/<run>[-ema][-k<k>])")
    parser.add_argument("--min-pixels", type=int, help="smallest image area (default: the benchmark's, else the checkpoint's)")
    parser.add_argument("--max-pixels", type=int, help="largest image area (default: the benchmark's, else the checkpoint's)")
    parser.add_argument("--max-new-tokens", type=int, help="longest answer (default: the benchmark's: 2048 for the six, 64 for others)")
    parser.add_argument("--workers", type=_count, help="processes that compute, on Ray if several (default: one per GPU; on CPUs one)")
    parser.add_argument("--batch", type=_count, default=1, help="units of work that a worker takes at a time; no result depends on it")
    parser.add_argument("--no-cache", dest="cache", action="store_false", help="compute all anew, and keep nothing in OUT/cache")
    parser.add_argument("--track-uri", help="MLflow tracking URI (default: sqlite:///work/mlflow.db)")
    parser.add_argument("--track-artifacts", help="where a new MLflow experiment keeps artifacts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
