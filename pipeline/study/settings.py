"""What a study is started with, read and checked before any work."""

import contextlib
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from data_prep import sources
from data_prep.checkpoint import load_config
from data_prep.encode import EncodeSettings
from data_prep.samples import DataError
from data_prep.shards import file_digest
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.mmeb_eval import load_sets
from data_prep.sources.synqa import UNPAIRED
from pipeline.config import RunConfig, Settings
from pipeline.study.arms import FULL_K, KINDS, Arm, Kind, Sources, ablation, elastic, selected
from pipeline.train.cli import parse

OWNED = ("out", "model.checkpoint", "data.shards", "data.weights", "chorus.elastic", "stop-after", "track.uri", "track.artifacts")
OWNED += ("track.parent", "track.enabled", "track.no-enabled", "resume", "help", "evaluate.shards", "evaluate.every", "evaluate.rows")
"""Trainer options that a study sets itself, or that make no sense for it."""


class StudySettings(Settings):
    """One study."""

    kind: Kind
    """Which arms."""
    checkpoint: Path
    """Checkpoint folder without chorus tokens: every arm starts from it."""
    shards_from: tuple[Path, ...] = Field(min_length=1)
    """Folders of raw training data; shards are prepared from them, once for each number of chorus tokens."""
    mmeb: Path
    """Folder of MMEB-eval sets."""
    benchmarks: Path
    """Folder of VLMEvalKit TSV files."""
    out: Path
    """Folder of the study."""
    recipe: str = "tiny"
    """The trainer's recipe."""
    sizes: tuple[int, ...] = ()
    """Chorus sizes: of the ablation's further arms, or of the elastic figure (empty: its default)."""
    full_k: int = FULL_K
    """Chorus tokens of the ablation's arms."""
    arms: tuple[str, ...] = ()
    """Names of the arms to run; empty: all."""
    max_pixels: int | None = Field(default=None, gt=0)
    """Largest image area, in preparation and evaluation; None: the checkpoint's."""
    track_uri: str = "sqlite:///work/mlflow.db"
    """MLflow tracking URI."""
    track_artifacts: str = "work/mlartifacts"
    """Where a new MLflow experiment keeps artifacts."""
    words: tuple[str, ...] = ()
    """Trainer options for every arm; what an arm varies, it sets itself."""


@dataclass(frozen=True)
class Plan:
    """What will be run: the arms with their resolved trainer settings, and digests of what goes in."""

    arms: tuple[Arm, ...]
    configs: dict[str, RunConfig]
    words: dict[str, list[str]]
    """Trainer options by arm, without paths."""
    inputs: dict[str, str]


def read_plan(settings: StudySettings) -> Plan:
    """Look at everything a study needs, before it begins.

    Raises:
        DataError: a folder is missing or unusable, or a trainer option is unknown, wrong or the study's own.
    """
    if settings.kind not in KINDS:
        raise DataError(f"found the study {settings.kind!r}; expected one of {', '.join(KINDS)}")
    if not (settings.checkpoint / "config.json").is_file():
        raise DataError(
            f"{settings.checkpoint}: found no checkpoint folder there; expected one without chorus tokens. The quickstart's is made by "
            "python -m pipeline.model base work/base"
        )
    if present := getattr(load_config(str(settings.checkpoint)), "chorus_token_ids", None):
        raise DataError(
            f"{settings.checkpoint}: found {len(present)} chorus tokens; expected none, since every arm is given its own number of them. "
            "Name the checkpoint that this one was made from"
        )
    parts = [part for root in settings.shards_from for part in sources.discover(root)]
    EncodeSettings(max_pixels=settings.max_pixels)
    arms = _arms(settings, parts)
    owned_by = {option_name(word) for word in settings.words if word.startswith("--")}
    if mine := sorted(owned_by & set(OWNED)):
        raise DataError(f"--{mine[0]}: found it among the trainer's options; expected none that the study sets for each arm. Leave it out")
    words = {arm.name: merge(settings.words, arm.words) for arm in arms}
    configs = {arm.name: _config(settings.recipe, arm.name, words[arm.name]) for arm in arms}
    return Plan(arms, configs, words, _inputs(settings, parts))


def option_name(word: str) -> str:
    """The field behind an option: "--loss.retrieval_weight=1" -> "loss.retrieval-weight"."""
    return word.removeprefix("--").partition("=")[0].replace("_", "-")


def merge(users: Sequence[str], arms: Sequence[str]) -> list[str]:
    """The user's trainer options without those that the arm sets, then the arm's: what is varied cannot be overridden."""
    owned = {option_name(word) for word in arms if word.startswith("--")}
    out, keep = [], True
    for word in users:
        if word.startswith("--"):
            keep = option_name(word) not in owned
        if keep:
            out.append(word)
    return [*out, *arms]


def source_names(parts: Sequence[sources.Part]) -> Sources:
    """Which sources hold answers, of which kind."""
    names = {reader: tuple(dict.fromkeys(p.source for p in parts if p.reader == reader)) for reader in ("synqa", "conversations")}
    unpaired = tuple(dict.fromkeys(p.source for p in parts if p.kind == UNPAIRED))
    return Sources(names["synqa"], names["conversations"], (*unpaired, *names["conversations"]))


def _arms(settings: StudySettings, parts: Sequence[sources.Part]) -> tuple[Arm, ...]:
    if settings.kind == "ablation":
        arms = ablation(source_names(parts), settings.full_k, settings.sizes)
    else:
        arms = elastic(settings.sizes) if settings.sizes else elastic()
    return selected(arms, settings.arms)


def _config(recipe: str, arm: str, words: Sequence[str]) -> RunConfig:
    """The trainer's settings of an arm, as the trainer itself will read them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return parse([recipe, *words]).config
    except (SystemExit, ValueError) as error:
        reason = said.getvalue().strip() or str(error)
        raise DataError(f"arm {arm}: the trainer refuses its options ({' '.join(words)}):\n{reason}") from error


def _inputs(settings: StudySettings, parts: Sequence[sources.Part]) -> dict[str, str]:
    load_sets(settings.mmeb)  # refuses what cannot be scored
    tables = sorted(settings.benchmarks.glob("*.tsv"))
    if not tables:
        raise DataError(f"{settings.benchmarks}: found no .tsv file there; expected a folder of VLMEvalKit TSV files")
    for table in tables:
        load_benchmark(table)
    data = sorted(f"{part.source} {part.split} {part.kind} {part.rows} {file_digest(part.path)}" for part in parts)
    return {
        "checkpoint": _files_digest([path for path in settings.checkpoint.iterdir() if path.is_file()]),
        "data": hashlib.sha256("\n".join(data).encode()).hexdigest()[:16],
        "mmeb": _files_digest([path for path in settings.mmeb.rglob("*") if path.suffix in (".parquet", ".json", ".jsonl")]),
        "benchmarks": _files_digest(tables),
        "max_pixels": str(settings.max_pixels or "the checkpoint's"),
    }


def _files_digest(paths: Sequence[Path]) -> str:
    """Names and contents; images are not looked at."""
    lines = [f"{path.name} {file_digest(path)}" for path in sorted(paths)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
