"""From a sharded engine to a plain Hugging Face folder: config, safetensors, tokenizer, image processor, and where it came from.

The folder opens with `from_pretrained`, and for texts with `SentenceTransformer`; nothing of this project is needed to read it. `crem.json`
records the run.
"""

import shutil
from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from data_prep.shards import atomic_folder, write_json
from pipeline import comm
from pipeline.model.crem import load_backbone
from pipeline.train.engine import Engine
from pipeline.train.sentence_files import write_sentence_files

PROVENANCE = "crem.json"


def export(engine: Engine, checkpoint: str, folder: Path, provenance: dict) -> None:
    """Write the trained model to `folder`, replacing an earlier export there (collective).

    Args:
        checkpoint: where training started; gives config, tokenizer and image processor.
        provenance: JSON-ready description of the run, kept as `crem.json`.
    """
    first = comm.rank() == 0
    state = {}
    for name, weight in engine.weights():
        if first:
            state[name] = weight.to("cpu", copy=True)
    if first:
        _write(state, checkpoint, folder, provenance)
    comm.barrier()


def _write(state: dict[str, torch.Tensor], checkpoint: str, folder: Path, provenance: dict) -> None:
    unset_hf_deepspeed_config()  # this copy of the model is whole, not partitioned
    model = load_backbone(checkpoint, dtype=next(iter(state.values())).dtype)
    own = dict(model.named_parameters())
    if own.keys() != state.keys():
        raise RuntimeError(f"{checkpoint}: its parameters are not the trained ones: {sorted(own.keys() ^ state.keys())[:5]}")
    with torch.no_grad():
        for name, weight in state.items():
            own[name].copy_(weight)
    with atomic_folder(folder) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        tokenizer.save_pretrained(unfinished)
        AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=False).save_pretrained(unfinished)
        write_sentence_files(unfinished, model.config, tokenizer)
        write_json(unfinished / PROVENANCE, provenance)
        shutil.rmtree(folder, ignore_errors=True)
