"""Frozen weights in training checkpoints: left out, and recognised at resume.

With adapters, what trains is a hundredth of the model. The rest lies in the checkpoint folder that the run started from, so a training
checkpoint holds its digest only, one for each rank's share. A folder that was changed in between is refused: going on from it would be
another run.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

DIGEST = "frozen_weights_sha256"
"""Its key in what DeepSpeed saves for its caller (client_state)."""


def digest(model: nn.Module) -> str:
    """SHA-256 of the frozen parameters' names and bytes: under ZeRO-3 of this rank's part of each, otherwise of the whole."""
    out = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            out.update(name.encode())
            own = getattr(parameter, "ds_tensor", parameter).detach().cpu().contiguous()
            out.update(own.reshape(-1).view(torch.uint8).numpy())
    return out.hexdigest()


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
