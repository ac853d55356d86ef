"""The Ray stage: MMEB-train rows -> JSON lines of questions and answers, as `sources.synqa` reads them.

Workers write about chunks of rows in any order; the driver puts every finished row into a journal beside the output. When all rows are
there it reads the journal in the order of the data, filters, and writes the files whole, then a report. So a run that was killed goes on
with the rows that are missing, and (with the transformers engine) the bytes are those of a run that was not, for any number of workers.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from data_prep.cluster import actors_as_finished, cluster
from data_prep.lock import hold
from data_prep.samples import DataError
from data_prep.shards import atomic_file, file_digest, write_json
from data_prep.sources import Part
from data_prep.synthesize.author import Author, Chunk, Job, Side, read_rows
from data_prep.synthesize.dialect import Dialect
from data_prep.synthesize.engine import WriteSettings, choose_engine
from data_prep.synthesize.filters import FilterSettings, Judge
from data_prep.synthesize.inputs import checkpoint_files, data_files, mmeb_parts
from data_prep.synthesize.journal import Journal
from data_prep.synthesize.prompts import DEFAULT, load_prompts
from data_prep.synthesize.records import candidate, record

READ = 256
"""Rows whose columns are in memory at a time while the files are written."""


class SynthesizeSettings(BaseModel):
    """What to write about, with which model, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roots: tuple[Path, ...] = Field(min_length=1)
    """Folders that hold MMEB-train data."""
    checkpoint: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """The model that writes: checkpoint folder or hub id."""
    out: Path
    """FILE.jsonl for all rows, or a folder for one file per subset. A file is one source, and batches of pairs are drawn by source."""
    split: str = "original"
    """MMEB-train's split: original or diverse_instruction."""
    image_root: Path | None = None
    """Folder the image paths start from, where it is not the data's own."""
    side: Side = "auto"
    """Whose image is asked about: qry, pos, or auto: the query's where it has one, else the positive's."""
    prompts: Path = DEFAULT
    """Prompt file."""
    rows_per_subset: int | None = Field(default=None, gt=0)
    """Only the first rows of every file of a subset; None: all."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """auto: vLLM where it is installed beside a GPU, else transformers."""
    write: WriteSettings = WriteSettings()
    """How the model writes."""
    filters: FilterSettings = FilterSettings()
    """What is kept."""
    seed: int = 0
    """Another seed, other answers (where temperature is not 0)."""
    workers: int | None = Field(default=None, gt=0)
    """Authors on CPUs; None: every CPU. Where there are GPUs there is one author on each."""
    chunk: int = Field(default=16, gt=0)
    """Rows that an author takes at a time: what a crash can cost it. vLLM wants hundreds."""


def synthesize(settings: SynthesizeSettings, say: Callable[[str], None] = print) -> dict:
    """Run the stage to its report, which is also written to OUT.report.json.

    Raises:
        DataError: unusable input, another job or other settings at the same output, or nothing that passed the filters.
    """
    settings = settings.model_copy(update={"out": settings.out.absolute()})
    parts = mmeb_parts(settings.roots, settings.image_root, settings.split)
    checkpoint = str(Path(settings.checkpoint).absolute()) if Path(settings.checkpoint).is_dir() else settings.checkpoint
    Dialect(checkpoint)  # refuses before Ray starts
    engine = choose_engine(settings.engine)
    job = Job(checkpoint, engine, settings.write, load_prompts(settings.prompts), settings.side, settings.seed)
    fingerprint = _fingerprint(settings, job, parts)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    hidden = settings.out.with_name(f".{settings.out.name}")
    with hold(settings.out, Path(f"{hidden}.lock"), "synthesize"):
        if found := _finished(settings, fingerprint):
            say(f"{settings.out} is there already and whole: nothing to do")
            return found
        _check_free(settings, parts, journal := Path(f"{hidden}.journal"))
        written_with = {key: value for key, value in fingerprint.items() if key != "filters"}  # what is kept is decided afterwards
        with Journal(journal, written_with) as done:
            if done.places:
                say(f"{len(done.places)} rows were written about before: skipped")
            _run(settings, job, parts, done)
            report = _write(settings, parts, done, fingerprint)
        journal.unlink()
    return report


def _fingerprint(settings: SynthesizeSettings, job: Job, parts: list[Part]) -> dict:
    """Everything the bytes depend on."""
    chosen = settings.model_dump(mode="json", include={"split", "side", "rows_per_subset", "write", "filters", "seed"})
    prompts = [prompt.model_dump() for prompt in job.prompts]
    return chosen | {"engine": job.engine, "prompts": prompts, "checkpoint": checkpoint_files(job.checkpoint), "data": data_files(parts)}


def _target(settings: SynthesizeSettings, part: Part) -> Path:
    return settings.out if settings.out.suffix == ".jsonl" else settings.out / f"{part.source.rpartition('/')[2]}.jsonl"


def _report_path(settings: SynthesizeSettings) -> Path:
    return settings.out.with_name(f"{settings.out.name}.report.json")


def _finished(settings: SynthesizeSettings, fingerprint: dict) -> dict | None:
    """The report of a finished run of the same settings whose files are intact."""
    path = _report_path(settings)
    report = json.loads(path.read_text()) if path.is_file() else {}
    if report.get("fingerprint") != fingerprint:
        return None
    files = {settings.out.parent / name: digest for name, digest in report["files"].items()}
    return report if all(file.is_file() and file_digest(file) == digest for file, digest in files.items()) else None


def _check_free(settings: SynthesizeSettings, parts: list[Part], journal: Path) -> None:
    """Refuse to replace files, unless they are those of the unfinished run that goes on."""
    there = next((path for part in parts if (path := _target(settings, part)).exists()), None)
    if there and not journal.is_file():
        raise DataError(f"{there}: found a file of another run there, expected none; remove it, or name another --out")


def _run(settings: SynthesizeSettings, job: Job, parts: list[Part], done: Journal) -> None:
    """Have every row written about that the journal lacks."""
    chunks = list(plan(settings, parts, done.places))
    if not chunks:
        return
    rows = sum(len(chunk.rows) for chunk in chunks)
    with (
        cluster(settings.workers) as workers,
        tqdm(total=rows, unit="row", desc="synthesize", disable=not sys.stderr.isatty()) as bar,
        closing(actors_as_finished(Author, chunks, (job,), workers)) as finished,
    ):
        for chunk, entries in finished:
            done.add(entries)
            bar.update(len(chunk.rows))


def plan(settings: SynthesizeSettings, parts: list[Part], done: dict[int, int]) -> Iterator[Chunk]:
    """Rows that are not done, in chunks of one part each."""
    for first, part in _numbered(parts):
        rows = [n for n in range(_rows(settings, part)) if first + n not in done]
        for start in range(0, len(rows), settings.chunk):
            yield Chunk(part, tuple(rows[start : start + settings.chunk]), first)


def _numbered(parts: list[Part]) -> Iterator[tuple[int, Part]]:
    """Every part with the number of its first row over all parts."""
    first = 0
    for part in parts:
        yield first, part
        first += part.rows


def _rows(settings: SynthesizeSettings, part: Part) -> int:
    return min(part.rows, settings.rows_per_subset or part.rows)


def _write(settings: SynthesizeSettings, parts: list[Part], done: Journal, fingerprint: dict) -> dict:
    """The output files, then the report.

    Raises:
        DataError: nothing passed the filters.
    """
    counts: Counter = Counter()
    judge = Judge(settings.filters)
    files: dict[str, str] = {}
    for target, own in groupby(_numbered(parts), lambda numbered: _target(settings, numbered[1])):
        target.parent.mkdir(parents=True, exist_ok=True)
        kept = counts["kept"]
        with atomic_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            for first, part in own:
                for made in _records(settings, part, first, done, judge, counts):
                    file.write(json.dumps(made) + "\n")
        if counts["kept"] > kept:
            files[str(target.relative_to(settings.out.parent))] = file_digest(target)
        else:
            target.unlink()  # readers refuse an empty file
    dropped = {reason: count for reason, count in sorted(counts.items()) if reason not in ("rows", "turns", "kept")}
    report = {key: counts[key] for key in ("rows", "turns", "kept")} | {"dropped": dropped, "label_leaks": judge.leaks}
    if not files:
        raise DataError(
            f"{settings.out}: found no question and answer that passes the filters, of {counts['turns']} about {counts['rows']} rows "
            f"({dropped}); expected some. What was written is kept, so other limits are tried at once; or name another model and --out"
        )
    report |= {"files": files, "fingerprint": fingerprint}
    write_json(_report_path(settings), report)
    return report


def _records(settings: SynthesizeSettings, part: Part, first: int, done: Journal, judge: Judge, counts: Counter) -> Iterator[dict]:
    """Records of a part that pass the filters, in order; counts all."""
    writer = {"generator": Path(settings.checkpoint).name, "temperature": settings.write.temperature}
    rows = _rows(settings, part)
    for start in range(0, rows, READ):
        for number, row in read_rows(part, range(start, min(start + READ, rows))):
            entry = done.entry(first + number)
            counts["rows"] += 1
            if "reject" in entry:
                counts[f"row: {entry['reject'].partition(':')[0]}"] += 1
                continue
            for k, turn in enumerate(entry["turns"]):
                reason = judge.reason(candidate(row, entry["side"], turn))
                counts["turns"] += 1
                counts[reason or "kept"] += 1
                if reason is None:
                    yield record(part, number, row, entry["side"], k, turn, writer)
