"""What an arm's result depends on, and what that means for an arm that has a folder already. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from data_prep.samples import DataError
from pipeline.config import RunConfig
from pipeline.redact import flatten
from pipeline.study.arms import Arm

Decision = Literal["new", "continue", "done"]


def identity(arm: Arm, config: RunConfig, inputs: Mapping[str, object]) -> dict:
    """Everything the arm's scores depend on, JSON-ready.

    Args:
        config: the trainer's settings, resolved. Where its checkpoint and shards lie is left out: they are made from `k` and `inputs`.
        inputs: digests of the base checkpoint, the raw data and what is evaluated.
    """
    content = config.content()
    del content["model"]["checkpoint"], content["data"]["shards"]
    return {"k": arm.k, "evaluate_at": list(arm.evaluate_at), "inputs": dict(inputs), "training": content}


def digest(settings: Mapping[str, object]) -> str:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def decide(name: str, recorded: Mapping | None, wanted: Mapping, scored: bool) -> Decision:
    """Whether an arm is still to be run.

    Args:
        recorded: the identity that the arm's folder was begun with; None where it has none.
        wanted: the identity asked for now.
        scored: whether all its evaluations are complete.

    Raises:
        DataError: the folder belongs to other settings; names each that differs.
    """
    if recorded is None:
        return "new"
    if digest(recorded) != digest(wanted):
        raise DataError(
            f"arm {name}: found results of other settings ({'; '.join(differences(recorded, wanted))}); expected the same, or the arms "
            "of this study would not compare. Name another --out, or remove this arm's folder"
        )
    return "done" if scored else "continue"


def differences(then: Mapping, now: Mapping) -> list[str]:
    """ "name: value then, value now" for every setting that differs, by dotted name."""
    before, after = dict(flatten(then)), dict(flatten(now))
    names = sorted(before.keys() | after.keys())
    return [f"{name}: {before.get(name)} then, {after.get(name)} now" for name in names if before.get(name) != after.get(name)]
