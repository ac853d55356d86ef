"""Frozen weights in training checkpoints: left out, and recognised at resume.

With adapters, what trains is a hundredth of the model. The rest lies in the checkpoint folder that the run started from, so a training
checkpoint holds its digest only, which is the same however ranks share them. A folder that was changed in between is refused: going on
from it would be another run.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import comm

DIGEST = "frozen_weights_sha256"
"""Its key in what DeepSpeed saves for its caller (client_state)."""


def digest(model: nn.Module, gather: Callable[[list[nn.Parameter]], AbstractContextManager]) -> str:
    """SHA-256 of the frozen parameters' names and bytes, on every rank (collective). Each parameter is digested by one rank.

    Args:
        gather: a context in which parameters that are in parts are whole on every rank.
    """
    own = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if not parameter.requires_grad:
            with gather([parameter]):
                if number % comm.world_size() == comm.rank():
                    whole = parameter.detach().cpu().contiguous().reshape(-1)
                    own[name] = hashlib.sha256(whole.view(torch.uint8).numpy()).hexdigest()
    every = {name: found for part in comm.gather_objects(own) for name, found in part.items()}
    return hashlib.sha256(json.dumps(every, sort_keys=True).encode()).hexdigest()


def load_trained(src: Mapping[str, Tensor], dst: nn.Module) -> None:
    """Load a state in which frozen parameters may be missing, and nothing else; for DeepSpeed's `custom_load_fn`.

    Raises:
        RuntimeError: a parameter that trains is missing, or there is one that the model does not have.
    """
    # tied parameters have several names
    frozen = {name for name, parameter in dst.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    found = dst.load_state_dict(src, strict=False)
    missing = sorted(set(found.missing_keys) - frozen)
    if missing or found.unexpected_keys:
        raise RuntimeError(f"checkpoint of another model: missing {missing}, unexpected {sorted(found.unexpected_keys)}")


def other_weights(folder: Path) -> str:
    """What to say where the digests differ."""
    return (
        f"{folder}: found a checkpoint whose frozen weights were not those that model.checkpoint holds now (their digest differs); "
        "expected the same, since it keeps only what trains. Put the old folder back in its place, or start anew with another --out"
    )
