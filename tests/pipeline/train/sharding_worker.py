"""One rank of the sharding test: a few steps under each DeepSpeed config, and the bytes of what the engine holds.

The bytes are counted when the optimizer has its moments, after a backward pass amid a step and after a step's last one. These passes are
made apart from `train_step`, so that nothing of a batch is alive when they are counted.
"""

import gc

import torch
import worker
from torch import Tensor
from worker import optimized

from data_prep.encode import Encoder
from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator
from pipeline.batches.loader import StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.train.engine import Engine
from pipeline.train.step import train_step


def storages(least: int = 256) -> dict[tuple[int, int], torch.dtype]:
    """(address, bytes) -> element type of all storages of at least `least` bytes that some tensor of this process uses."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if not issubclass(type(thing), Tensor):
            continue
        for tensor in (thing, thing.grad) if thing.is_leaf else (thing,):
            if tensor is not None and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                if storage.nbytes() >= least:
                    found[storage.data_ptr(), storage.nbytes()] = tensor.dtype
    return found


def weigh(engine: Engine, blank: PackedBatch, before: dict, last: bool) -> dict[str, int]:
    """Bytes by element type that the engine holds after a backward pass, beyond what was there before it was built."""
    embeddings_SD, losses_N, *_ = engine.forward(blank)
    engine.backward(embeddings_SD.sum() + losses_N.sum(), last)
    del embeddings_SD, losses_N
    out: dict[str, int] = {}
    for key, kind in storages().items():
        if key not in before:
            out[str(kind)] = out.get(str(kind), 0) + key[1]
    return out


def run(scenario: dict) -> dict:
    """Train; returns losses, and the bytes held at the end."""
    config = RunConfig.model_validate(scenario["config"])
    encoder = Encoder(config.model.checkpoint)
    collator_parts = encoder.image_id, encoder.tokenizer.pad_token_id
    before = storages()
    engine = worker.build(scenario, config)
    collator = Collator(encoder.images, engine.model.backbone.model.get_rope_index, *collator_parts)
    loader = StepLoader(ShardReader(config.data.shards, encoder, verify=False), collator, config, comm.rank(), comm.world_size())
    results = []
    for number in range(config.steps):
        result = train_step(engine, loader.step(number), loader.blank(), config.loss, 1e-3, torch.device("cpu"), (config.seed, number))
        results.append({"loss": result.loss, "grad_norm": result.grad_norm, "applied": result.applied})
        del result
    blank = loader.blank()
    before |= storages_of(blank)
    numbers = sum(getattr(p, "ds_numel", p.numel()) for p in engine.model.parameters())
    held = [weigh(engine, blank, before, last) for last in (False, True)]
    return {"results": results, "held": held, "numbers": numbers, "trained": optimized(engine)}


def storages_of(batch: PackedBatch) -> dict[tuple[int, int], torch.dtype]:
    """Those of the batch's tensors."""
    tensors = [tensor for tensor in vars(batch).values() if isinstance(tensor, Tensor)]
    return {(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()): tensor.dtype for tensor in tensors}


if __name__ == "__main__":
    worker.main(run)
