"""Reading a DeepSpeed JSON: refusals in plain words, and the complete dictionary that DeepSpeed is given."""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError

from data_prep.samples import DataError
from pipeline.train.sharding import STAGES, Sharding

OWNED = {
    "train_batch_size": "batch.pairs",
    "train_micro_batch_size_per_gpu": "batch.chunk_tokens",
    "gradient_accumulation_steps": "batch.chunk_tokens",
    "gradient_clipping": "optim.clip",
    "optimizer": "optim",
    "scheduler": "optim.schedule",
}
"""Keys of a DeepSpeed config that the run config owns, and where."""


def read_sharding(path: Path) -> Sharding:
    """Read and check a DeepSpeed JSON.

    Raises:
        DataError: no such file, not JSON, an unknown key, a key the run config owns, a wrong value, or two that contradict each other; each
            named with its place.
    """
    if not path.is_file():
        raise DataError(f"{path}: found no such DeepSpeed config; expected a JSON file, e.g. ds_configs/zero3.json")
    try:
        written = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: found invalid JSON ({error}); expected a DeepSpeed configuration") from error
    if not isinstance(written, dict):
        raise DataError(f"{path}: found {type(written).__name__}; expected a JSON object with zero_optimization")
    for key in written:
        if key in OWNED:
            raise DataError(f"{path}: found {key}, which the run config owns; remove it here and set --{OWNED[key]}")
    try:
        return Sharding.model_validate(written)
    except ValidationError as error:
        raise DataError("\n".join(f"{path}: {_in_words(problem)}" for problem in error.errors())) from error


def load_deepspeed_config(path: Path, clip: float) -> dict:
    """What DeepSpeed is given: the file, every key written out, and what this pipeline owns.

    Raises:
        DataError: as `read_sharding`.
    """
    sharding = read_sharding(path)
    stage = sharding.zero_optimization.stage
    config = sharding.model_dump(mode="json", exclude_none=True)
    config["zero_optimization"] = {k: v for k, v in config["zero_optimization"].items() if stage in STAGES.get(k, (0, 1, 2, 3))}
    return config | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": False,
        "zero_force_ds_cpu_optimizer": False,
        # chunks add up in float32 whatever the weights' type, so that their number does not change the gradient
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "prescale_gradients": False,
    }


def check_ranks(config: dict, ranks: int) -> None:
    """Refuse a hierarchical partition that does not divide the ranks; DeepSpeed would fail after the model is loaded.

    Raises:
        DataError: it does not.
    """
    size = config["zero_optimization"].get("zero_hpz_partition_size", 1)
    if size > 1 and ranks % size:
        raise DataError(
            f"zero_optimization.zero_hpz_partition_size = {size}, found {ranks} ranks; expected a multiple of {size}: set it to the "
            "GPUs of one node, or take ds_configs/zero3_bf16.json"
        )


def _in_words(problem: dict) -> str:
    """One of pydantic's findings: where, what was found, what was expected."""
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        group, name = problem["loc"][:-1], str(problem["loc"][-1])
        known = _keys_at(group)
        near = difflib.get_close_matches(name, known, 1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}"
        return f"found the unknown key {place}; {hint}"
    if problem["type"] == "missing":
        return f"found no {place}; expected it"
    if problem["type"] == "value_error":
        return f"found in {place or 'the file'}: {problem['ctx']['error']}"
    return f"found {place} = {problem['input']!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _keys_at(group: tuple) -> list[str]:
    """Accepted keys of a nested group."""
    model: type[BaseModel] = Sharding
    for name in group:
        model = next(_models(model.model_fields[name].annotation))
    return list(model.model_fields)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The settings classes in an annotation such as `Aio | None`."""
    for option in get_args(annotation) or (annotation,):
        if isinstance(option, type) and issubclass(option, BaseModel):
            yield option
