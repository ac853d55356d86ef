"""What the numbers of an evaluation depend on beside its data and settings: checkpoint, source and arithmetic, as digests and names."""

import hashlib
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL
import torch
import transformers
from transformers.utils import cached_file

from data_prep.samples import DataError
from data_prep.shards import file_digest

ROOT = Path(__file__).parents[2]
SOURCE = ("data_prep", "pipeline/batches", "pipeline/evaluate", "pipeline/model")
"""Where the code lies that turns an item into a result."""
KINDS = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""Files of a checkpoint: weights, configuration, tokenizer, template, image processor."""


def of_run(checkpoint: str, numerics: dict) -> dict:
    """JSON-ready; equal where equal items give equal results, bit for bit."""
    return {"checkpoint": checkpoint_files(checkpoint), "source": source_digest(), "numerics": numerics}


def checkpoint_files(checkpoint: str) -> dict[str, str]:
    """{file name: SHA-256} of all that a checkpoint's folder says and holds (a hub id: of the downloaded one).

    Raises:
        DataError: there are no weights, or none yet.
    """
    folder = Path(cached_file(checkpoint, "config.json")).parent
    found = {path.name: file_digest(path) for kind in KINDS for path in sorted(folder.glob(kind))}
    if not any(name.endswith(".safetensors") for name in found):
        raise DataError(
            f"{checkpoint}: found no weights (*.safetensors) in {folder}; expected them beside config.json, or results of other weights "
            "would be taken for this checkpoint's. Export or download it again"
        )
    return found


def source_digest() -> str:
    """SHA-256 of the source files behind a result, and so of every rule of theirs that no setting states."""
    paths = [path for folder in SOURCE for path in sorted((ROOT / folder).rglob("*.py"))]
    return hashlib.sha256("".join(f"{path.relative_to(ROOT)} {file_digest(path)}\n" for path in paths).encode()).hexdigest()


def numerics() -> dict:
    """Processor and libraries of this process: two that agree in them compute the same bits."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu()
    return {"device": device, "torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__}


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, this process's CPU arithmetic runs on one thread.

    How a matrix product is summed may depend on how many threads share it. One is the number that every machine has, however many
    workers it runs, so workers are how an evaluation uses more cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return f"{found[1] if found else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
