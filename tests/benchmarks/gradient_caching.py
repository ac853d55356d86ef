"""Peak memory of one training step: a large contrastive batch through small chunks beside one small chunk, and beside no caching.

    python -m tests.benchmarks.gradient_caching

Each line is a fresh process with one rank: the engine is built (ZeRO-3 on the embedded two-million-parameter model), then one step runs.
"Peak" is the process's high-water mark of resident memory after the step (`ru_maxrss`) less its resident memory before it. Both sides of
every pair show a picture. One line packs all chunks beforehand, as a loader that holds a step's tensors would.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from PIL import Image

from data_prep.embedded import corpus
from data_prep.encode import Encoder, to_row
from data_prep.samples import ImageRef, RawSample, Side
from data_prep.shards import write_manifest, write_shard
from pipeline.batches.collate import Collator
from pipeline.batches.loader import StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.model.base import write_base
from pipeline.model.chorus import add_chorus
from pipeline.ports import free_port

PICTURE = 112
"""Side of the pictures: 64 patches, 16 visual tokens."""
MIB = 2**20


def main() -> None:
    """Prepare data and model, measure every case in its own process, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1024, help="pairs of the large batch")
    parser.add_argument("--uncached", type=int, default=128, help="pairs of the batch that is run as a single chunk")
    parser.add_argument("--chunk", type=int, default=8, help="pairs of a chunk")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(**args.measure)))
        return
    cases = [
        (f"{args.chunk} pairs in one chunk", dict(pairs=args.chunk, chunk=args.chunk)),
        (f"{args.pairs} pairs in chunks of {args.chunk}", dict(pairs=args.pairs, chunk=args.chunk)),
        (f"{args.pairs} pairs in chunks of {args.chunk}, all packed first", dict(pairs=args.pairs, chunk=args.chunk, packed=True)),
        (f"{args.uncached} pairs in one chunk (no caching)", dict(pairs=args.uncached, chunk=args.uncached)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), max(args.pairs, args.uncached))
        print(f"{'one step of':<48}{'chunks':>7}{'peak MiB':>10}{'seconds':>9}")
        for name, case in cases:
            result = in_fresh_process(case | {"folder": folder})
            print(f"{name:<48}{result['chunks']:>7}{result['peak_mib']:>10.0f}{result['seconds']:>9.1f}", flush=True)


def prepare(folder: Path, pairs: int) -> None:
    """Checkpoint and shards: pairs of one picture and a few words on each side, all different."""
    write_base(folder / "base", corpus(0))
    add_chorus(folder / "base", folder / "crem", k=4)
    encoder = Encoder(folder / "crem")
    (folder / "shards").mkdir()
    rows = (to_row(encoder.sample(_sample(i))) for i in range(pairs))
    record = write_shard(folder / "shards", "drawn-000.arrow", "drawn", rows, [])
    write_manifest(folder / "shards", {"encoder": encoder.fingerprint()}, [record])


def _sample(i: int) -> RawSample:
    query, positive = (Side("the same colour", (_picture(2 * i + side),)) for side in (0, 1))
    return RawSample(id=f"drawn/{i}", source="drawn", query=query, positive=positive)


def _picture(i: int) -> ImageRef:
    file = io.BytesIO()
    Image.new("RGB", (PICTURE, PICTURE), (i % 256, i // 256 % 256, 128)).save(file, "PNG")
    return ImageRef(f"{i}.png", data=file.getvalue())


def in_fresh_process(case: dict) -> dict:
    """Measure one case where nothing has run before."""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    ranks["MASTER_PORT"] = str(free_port())
    command = [sys.executable, "-m", "tests.benchmarks.gradient_caching", "--measure", json.dumps(case)]
    done = subprocess.run(command, env=os.environ | ranks, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: str, pairs: int, chunk: int, packed: bool = False) -> dict:
    """Run one step; peak memory in MiB, seconds, number of chunks."""
    from dataclasses import replace

    from pipeline import comm
    from pipeline.train.engine import Engine, init_distributed, load_deepspeed_config
    from pipeline.train.step import train_step

    torch.set_num_threads(1)
    device = init_distributed(timeout_minutes=5)
    encoder = Encoder(f"{folder}/crem")
    reader = ShardReader(Path(folder) / "shards", encoder)
    longest = max(len(side) for row in map(reader.row, range(len(reader))) for side in (row.query, row.positive))
    config = RunConfig.model_validate(
        {
            "model": {"checkpoint": f"{folder}/crem"},
            "data": {"shards": f"{folder}/shards"},
            # a row holds one sequence, so a chunk of n pairs is 2 n rows
            "batch": {"pairs": pairs, "conversations": 0, "sub_batch": pairs, "row_tokens": longest, "chunk_tokens": 2 * chunk * longest},
        }
    )
    engine = Engine(config, load_deepspeed_config(config.deepspeed, config.optim.clip))
    collator = Collator(encoder.images, engine.model.backbone.model.get_rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
    loader = StepLoader(reader, collator, config, rank=0, world=1)
    blank = loader.blank()
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    work = loader.step(0)
    if packed:
        work = replace(work, chunks=list(work.chunks))
    result = train_step(engine, work, blank, config.loss, 1e-4, device, (config.seed, 0))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    comm.shutdown()
    return {"peak_mib": (peak - before) / MIB, "seconds": seconds, "chunks": result.chunks}


if __name__ == "__main__":
    main()
