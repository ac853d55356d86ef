"""What the stage reads, and how it is told whether that has changed."""

from collections.abc import Sequence
from pathlib import Path

from transformers.utils import cached_file

from data_prep import sources
from data_prep.samples import DataError
from data_prep.shards import file_digest
from data_prep.sources import Part


def mmeb_parts(roots: Sequence[Path], image_root: Path | None, split: str) -> list[Part]:
    """The MMEB-train parts below the folders, in reading order.

    Raises:
        DataError: none there, or a set that is found twice.
    """
    image_root = image_root and image_root.absolute()
    found = [part for root in roots for part in sources.discover(root.absolute(), image_root, split)]
    parts = [part for part in found if part.reader == "mmeb_train"]
    if not parts:
        others = ", ".join(sorted({part.source for part in found})[:5])
        raise DataError(f"{', '.join(map(str, roots))}: found {others}; expected MMEB-train sets: <Subset>/{split}-*.parquet")
    sources.check_distinct(parts)
    return parts


def checkpoint_files(checkpoint: str) -> dict[str, str]:
    """{file name: SHA-256} of a checkpoint's configuration, tokenizer and weights."""
    folder = Path(cached_file(checkpoint, "config.json")).parent
    kinds = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.*", "preprocessor_config.json", "*.safetensors")
    return {path.name: file_digest(path) for kind in kinds for path in sorted(folder.glob(kind))}


def data_files(parts: Sequence[Part]) -> dict[str, str]:
    """{subset/file name: SHA-256} of the parquet files; images are taken as they are."""
    return {f"{part.source}/{part.path.name}": file_digest(part.path) for part in parts}
