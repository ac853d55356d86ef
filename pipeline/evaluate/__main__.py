"""Score one exported checkpoint: `python -m pipeline.evaluate CHECKPOINT [--mmeb FOLDER] [--benchmarks PATH ...]`.

Retrieval (MMEB) and comprehension (VLM benchmarks, native and compressed) of the same weights, one report, with heat maps of the chorus'
attention over a few query images; the result is linked in MLflow to the run that trained them. A checkpoint without chorus tokens is a
baseline: last-token pooling, native answers.

Everything is planned first (`units`), then computed by whoever is there (`crew`) and kept (`kept`), then scored from what is kept.
"""

import argparse
import functools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from data_prep.command import exit_status
from data_prep.encode import Encoder, EncodeSettings
from data_prep.samples import DataError
from data_prep.sources.benchmarks import Benchmark, load_benchmark
from data_prep.sources.mmeb_eval import EvalSet, load_sets
from pipeline.allocator import keep_freed_memory
from pipeline.evaluate import attention, identity, inputs, plots, report
from pipeline.evaluate.base import read_base
from pipeline.evaluate.crew import Crew
from pipeline.evaluate.endpoint import KEY_VARIABLE, Endpoint
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.kept import kept_in
from pipeline.evaluate.mmeb import plan_set, score_set
from pipeline.evaluate.open import open_checkpoint
from pipeline.evaluate.page.render import write_report
from pipeline.evaluate.protocols import MMEB_IMAGE_TOKENS
from pipeline.evaluate.vlm import plan_benchmark, score_benchmark
from pipeline.evaluate.worker import Job
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
    sets = load_sets(args.mmeb, args.image_root) if args.mmeb else []
    benchmarks = [load_benchmark(path) for path in _tsv_files(args.benchmarks)]
    inputs.check(sets, benchmarks)
    base = read_base(args.base) if args.base else None
    settings = EncodeSettings(min_pixels=args.min_pixels, max_pixels=args.max_pixels, max_tokens=32768)
    encoder = Encoder(args.checkpoint, settings, baseline=True).shortened(args.k)
    folder = Path(args.checkpoint).resolve()
    name = (folder if encoder.baseline else folder.parent).name + ("" if args.k is None else f"-k{args.k}")
    out = args.out or Path("work/eval") / name
    judge = _judge(args, out)
    crew = Crew(args.workers, args.batch)
    result = score(args.checkpoint, encoder, sets, benchmarks, out, judge, args.max_new_tokens, crew, args.cache)
    result = replace(result, base=base)
    files = report.write(result, out) + plots.draw(result, out / "plots") + [out / "plots" / "attention"] * bool(result.attention)
    files.append(write_report(result, out, sets, benchmarks))
    print(report.console(result))
    _track(args, result, out)
    print(f"scores, plots and every prediction: {out}\n" + "\n".join(f"  {path}" for path in files))
    return 0


def score(
    checkpoint: str,
    encoder: Encoder,
    sets: list[EvalSet],
    benchmarks: list[Benchmark],
    out: Path,
    judge: Judge | None = None,
    max_new_tokens: int | None = None,
    crew: Crew = Crew(),
    cache: bool = True,
) -> report.Report:
    """All scores of one checkpoint, and the attention of its chorus over the first query images (drawn into `out/plots/attention`).

    What is computed is kept in `out/cache`, and not computed again (`kept`); without `cache` nothing is kept.
    """
    numerics = crew.numerics()
    of_run = identity.of_run(checkpoint, numerics)
    sized = encoder.with_image_tokens(None, MMEB_IMAGE_TOKENS)
    modes = ("native",) if encoder.baseline else ("native", "compressed")
    retrieval = [(eval_set, plan_set(eval_set, sized, of_run)) for eval_set in sets]
    asked = [(b, mode, plan_benchmark(b, mode, encoder, of_run, max_new_tokens)) for b in benchmarks for mode in modes]
    opened = functools.cache(lambda: open_checkpoint(checkpoint, encoder))
    tasks = [task for *_, task in (*retrieval, *asked)]
    place = str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint  # workers may stand in another folder
    with kept_in(out / "cache", cache) as kept:
        crew.compute(tasks, Job(place, None if encoder.baseline else encoder.k, numerics), kept, opened)
        found = tuple(score_set(eval_set, task, kept, out / "predictions") for eval_set, task in retrieval)
        answers = tuple(one for b, mode, task in asked for one in score_benchmark(b, mode, task, kept, out / "predictions", judge))
        size = kept.keep_only({unit.key for task in tasks for unit in task.units})
    if cache:
        print(f"{size / 2**20:.1f} MiB of results are kept in {out / 'cache'}: what has not changed is not computed again", file=sys.stderr)
    facts = {"checkpoint": str(checkpoint)} | _chorus_in_words(encoder)
    facts |= {"judge": judge.in_words()} if judge else {}
    seen: dict[str, float] = {}
    if not encoder.baseline and (items := [(side, sized.sequence(side)) for side in attention.first_queries(sets)]):
        with identity.one_thread():
            seen = attention.draw(opened(), items, out / "plots" / "attention").figures
        facts["chorus attention"] = f"{attention.in_words(seen)}; {len(items)} queries"
    title = f"{'Baseline' if encoder.baseline else 'CREM'} evaluation of {checkpoint}"
    return report.Report(title, found, answers, facts, seen)


def _chorus_in_words(encoder: Encoder) -> dict[str, str]:
    """What is pooled, for the report."""
    if encoder.baseline:
        return {"chorus tokens": "-", "pooling": report.BASELINE, "compressed answers": "-"}
    return {"chorus tokens": f"{encoder.k} of {len(encoder.chorus_ids)}"}


def _judge(args: argparse.Namespace, out: Path) -> Judge | None:
    """The judge that was asked for, once it has given a sign of life."""
    if not args.judge:
        if args.judge_model:
            raise DataError("--judge-model: found a model without a server; expected --judge http://127.0.0.1:8000/v1 too, or neither")
        return None
    judge = Judge(Endpoint.from_environment(args.judge, args.judge_model), out / "judge")
    judge.check()
    return judge


def _track(args: argparse.Namespace, result: report.Report, out: Path) -> None:
    """Log the evaluation as a child of the run that trained the checkpoint, and the headline on that run itself."""
    settings = TrackSettings(**{k: v for k, v in (("uri", args.track_uri), ("artifacts", args.track_artifacts)) if v})
    path = Path(args.checkpoint) / "crem.json"
    trained = json.loads(path.read_text()).get("tracked_run") if path.is_file() else None
    tags = {"crem.kind": "evaluation"} | (scored_run_tags(trained) if trained else {})
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
    if trained and args.k is None:  # the run's own headline is that of the whole chorus
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
    parser.add_argument("--out", type=Path, help="folder for scores and predictions (default: work/eval/<run>, or <run>-k<k>)")
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
