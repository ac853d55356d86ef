"""`python -m data_prep synthesize`: arguments, and the report in words."""

import argparse
from pathlib import Path


def add_parser(commands) -> None:
    """Enter the command; an option that is not given keeps the default of `SynthesizeSettings`."""
    parser = commands.add_parser(
        "synthesize", help="a vision-language model writes questions and answers about MMEB-train rows", argument_default=argparse.SUPPRESS
    )
    parser.set_defaults(run=_run)
    parser.add_argument("roots", nargs="+", type=Path, help="folders with MMEB-train data")
    parser.add_argument("--checkpoint", help="the model that writes (default: Qwen/Qwen2.5-VL-7B-Instruct)")
    parser.add_argument("--out", required=True, type=Path, help="FILE.jsonl for all rows, or a folder for one file per subset")
    parser.add_argument("--split", help="MMEB-train split: original or diverse_instruction")
    parser.add_argument("--image-root", type=Path, help="folder the image paths start from, if not the data's own")
    parser.add_argument("--side", choices=("auto", "qry", "pos"), help="whose image is asked about (auto: the query's if any)")
    parser.add_argument("--prompts", type=Path, help="prompt file (default: data_prep/synthesize/prompts.toml)")
    parser.add_argument("--rows-per-subset", type=int, help="only the first rows of every file")
    parser.add_argument("--engine", choices=("auto", "vllm", "transformers"), help="auto: vLLM where it is installed beside a GPU")
    parser.add_argument("--temperature", type=float, help="0: always the likeliest token (default: 0.7)")
    parser.add_argument("--max-new-tokens", type=int, help="longest question or answer (default: 256)")
    parser.add_argument("--max-pixels", type=int, help="largest image area the model is shown (default: 1003520)")
    parser.add_argument("--max-question-chars", type=int, help="longer questions are dropped (default: 400)")
    parser.add_argument("--max-answer-chars", type=int, help="longer answers are dropped (default: 2000)")
    parser.add_argument("--label-leak", choices=("keep", "drop"), help="answers that spell the positive text (default: keep, and count)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, help="authors on CPUs (default: every CPU); with GPUs, one on each")
    parser.add_argument("--chunk", type=int, help="rows that an author takes at a time (default: 16; vLLM wants hundreds)")


def _run(args: argparse.Namespace) -> int:
    from data_prep.synthesize.job import SynthesizeSettings, synthesize  # torch comes with it: not for the other commands

    given = {name: value for name, value in vars(args).items() if name != "run"}
    for name in ("write", "filters"):
        kind = SynthesizeSettings.model_fields[name].annotation
        given[name] = kind(**{field: given.pop(field) for field in kind.model_fields if field in given})
    settings = SynthesizeSettings(**given)
    report = synthesize(settings)
    print(summary(report))
    folder = settings.out.parent if settings.out.suffix == ".jsonl" else settings.out
    print(f"{settings.out}, with a report in {settings.out}.report.json\n")
    print(f"Next: bash launchers/prepare.sh {folder} --checkpoint CHECKPOINT --out SHARDS")
    print("      (--image-root MMEB-TRAIN-FOLDER unless that folder is called MMEB-train and lies beside it)")
    return 0


def summary(report: dict) -> str:
    """Counts of a report as lines of text."""
    kept, turns = report["kept"], report["turns"]
    lines = [f"{report['rows']} rows, {turns} questions, {kept} kept ({kept / max(1, turns):.1%}), {report['label_leaks']} spell the label"]
    lines += [f"  dropped, {reason}: {count}" for reason, count in report["dropped"].items()]
    return "\n".join(lines)
