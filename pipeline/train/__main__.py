"""The training job of one rank: check everything, then run steps until done.

Order matters: configuration, data and checkpoint are verified before the model is built, so that a wrong path costs seconds. Success is
`result.json`, written after the last barrier; an exit code alone says little about the other ranks.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import torch

from data_prep.chorus import chorus_size
from data_prep.encode import Encoder
from data_prep.samples import DataError
from data_prep.shards import verify_shards, write_json
from pipeline import comm, heartbeat
from pipeline.batches.collate import Collator
from pipeline.batches.loader import StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.losses.contrastive import learnt_temperature
from pipeline.model.kernels import check_kernels
from pipeline.train import checkpoint, commit, held_out
from pipeline.train.averaging import check_ema
from pipeline.train.cli import Command, parse
from pipeline.train.ds_config import check_ranks, load_deepspeed_config
from pipeline.train.engine import Engine, init_distributed
from pipeline.train.export import export
from pipeline.train.progress import Progress
from pipeline.train.saver import Keep, SaveError, Saver
from pipeline.train.schedule import learning_rate
from pipeline.train.signals import Signals
from pipeline.train.step import train_step

OUTCOMES = {0: "done", 3: "stopped: too many refused steps", 4: "preempted: saved and stopped at SIGTERM"}
"""What result.json says of an exit status."""


def main(argv: list[str]) -> int:
    """Run one rank; returns the exit status.

    0 done; 2 bad input, nothing was started; 3 stopped by refused steps; 4 stopped by SIGTERM, with a checkpoint to resume from; 6 a
    checkpoint could not be written. (5 is the supervisor's: a rank was lost.) 1, or a signal's number, is anything else.
    """
    command = parse(argv)
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_SIZE", "1"))))
    try:
        _check_ranks(command.config.ranks)
        return run(command, init_distributed(command.config.timeout_minutes))
    except DataError as error:
        print(f"error (rank {os.environ.get('RANK', 0)}): {error}", file=sys.stderr, flush=True)
        return 2
    except SaveError as error:
        print(f"error (rank {os.environ.get('RANK', 0)}): {error}", file=sys.stderr, flush=True)
        comm.barrier()  # every rank raises it, and a launcher ends all of them as soon as one has left
        return 6
    finally:
        comm.shutdown()


def _check_ranks(expected: int | None) -> None:
    """Compare the ranks that the launcher started, on its word, with those asked for; before they wait for each other.

    A started script cannot see the launcher's hostfile. This is where its absence shows.
    """
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if expected is not None and found != expected:
        raise DataError(
            f"found {found} ranks, expected {expected} (--ranks); nothing was started. Check that deepspeed's --hostfile exists (one node "
            "trains without it), and its slots; on a CPU machine set CREM_CPU_RANKS. Or change --ranks"
        )


def run(command: Command, device: torch.device) -> int:
    """Verify, build, train, save, export."""
    config = command.config
    heartbeat.beat("checking inputs")
    ds_config, encoder, reader, unseen = _inputs(config)
    stage, precision = ds_config["zero_optimization"]["stage"], "bf16" if ds_config.get("bf16", {}).get("enabled") else "fp32"
    belongs = checkpoint.Belongs(stage, precision, reader.manifest.digest())
    resumed = _resume_point(command, belongs)
    if comm.rank() == 0:
        (config.out / "result.json").unlink(missing_ok=True)  # it will speak of this job
    heartbeat.beat("building the model")
    engine = Engine(config, ds_config)
    rope_index = engine.model.backbone.model.get_rope_index
    collator = Collator(encoder.images, rope_index, encoder.image_id, pad_id=encoder.tokenizer.pad_token_id)
    loader = StepLoader(reader, collator, config, comm.rank(), comm.world_size())
    looks = held_out.HeldOut(unseen, collator, config, comm.rank(), comm.world_size()) if unseen else None
    first = 0
    if resumed:
        heartbeat.beat("loading the checkpoint")
        folder, manifest = resumed
        checkpoint.load(engine, folder)
        first = manifest.step
    progress = Progress.start(command, ds_config, reader.manifest, engine.model, first, resumed[1].tracked_run if resumed else None)
    progress.say(loader.plan())
    with progress:
        done = _steps(config, engine, loader, progress, first, device, belongs, looks)
        if done == config.steps:
            heartbeat.beat("exporting")
            origin = {"step": config.steps, "data": reader.manifest.digest(), "tracked_run": progress.run_id}
            _export(config, engine, config.out / "export", origin)
            progress.exported(config.out / "export")
            if config.ema.decay is not None:
                heartbeat.beat("exporting the average")
                with engine.averaged():
                    _export(config, engine, config.out / "export-ema", origin | {"averaged": True})
                progress.say(f"exported: {config.out / 'export-ema'}, the average of the weights (ema.decay {config.ema.decay:g})")
    heartbeat.beat("waiting for all ranks to finish")
    comm.barrier()
    status = 4 if progress.killed else 3 if progress.failed else 0
    if comm.rank() == 0:
        said = {"status": status, "outcome": OUTCOMES[status], "steps": done, "tracked_run": progress.run_id, "job": heartbeat.job()}
        write_json(config.out / "result.json", said)
    comm.barrier()  # a launcher ends all ranks as soon as one leaves with another status than 0
    return status


def _inputs(config: RunConfig) -> tuple[dict, Encoder, ShardReader, ShardReader | None]:
    """Everything that is read before the model is built; where any rank finds fault, all ranks stop.

    Raises:
        DataError: the first fault found.
    """
    found, problem = None, None
    try:
        check_kernels(config.model)
        encoder = Encoder(config.model.checkpoint)
        chorus_size(max(config.chorus.elastic, default=None), len(encoder.chorus_ids), "chorus.elastic: k")
        reader = ShardReader(config.data.shards, encoder, verify=False)
        unseen = held_out.open_rows(config, encoder, reader.manifest.digest())
        found = load_deepspeed_config(config.deepspeed, config.optim.clip), encoder, reader, unseen
        check_ranks(found[0], comm.world_size())
        check_ema(config.ema, found[0]["zero_optimization"])
        if config.data.verify:
            verify_shards(config.data.shards, reader.manifest, part=comm.rank(), parts=comm.world_size())
    except DataError as error:
        problem = str(error)
    if agreed := comm.agree(problem):
        raise DataError(agreed)
    return found


def _export(config: RunConfig, engine: Engine, folder: Path, origin: dict) -> None:
    """The weights as they are, with the run they come from (collective)."""
    provenance = origin | {"config": config.model_dump(mode="json")}
    if config.loss.learn_temperature:
        provenance["temperature"] = learnt_temperature(config.loss.temperature, engine.log_scale())
    export(engine, config.model.checkpoint, folder, provenance)


def _steps(config: RunConfig, engine: Engine, loader: StepLoader, progress: Progress, first: int, device, belongs, looks) -> int:
    """Steps first .. last; returns how many steps of the run are done (fewer than asked: `progress` says whether by refusals or SIGTERM).

    Raises:
        SaveError: a checkpoint could not be written; seen at the end of a step, by all ranks.
    """
    blank = loader.blank()
    keep = Keep(config.keep, config.keep_best, config.keep_best_is)
    saver = Saver(engine, config.out / "checkpoints", keep, progress.say)
    refused = 0
    waiting = time.perf_counter()
    with Signals() as signals:
        for number, work in enumerate(loader.steps(first, config.last_step), first):
            waited = time.perf_counter() - waiting
            heartbeat.beat("step", number + 1)
            rate = learning_rate(config.optim, number, config.steps)
            # rank 0 speaks, so it alone looks at how the embeddings lie
            look = comm.rank() == 0 and progress.due(number)
            result = train_step(engine, work, blank, config.loss, rate, device, (config.seed, number), look)
            refused = 0 if result.applied else refused + 1
            stop, save, flushed = progress.step(number, work, result, rate, waited, (signals.stop, signals.save, saver.ready))
            if refused > config.max_refused:
                saver.finish()
                progress.say(f"stopped: {refused} steps in a row were refused; the last good checkpoint is in {config.out / 'checkpoints'}")
                progress.failed = True
                return number
            done = number + 1
            ends = done == config.last_step
            if flushed == comm.world_size():
                saver.finish()
            if looks and looks.due(done) and (ends or not stop):  # whoever asks to stop waits for the checkpoint
                heartbeat.beat("looking at held-out rows", done)
                progress.evaluated(done, looks.measure(engine, device))
            if done % config.save_every == 0 or ends or stop or save:
                heartbeat.beat("saving a checkpoint", done)
                saver.begin(_manifest(config, progress, belongs, done))
                signals.save = False
                if ends or stop or not config.save_in_background:
                    saver.finish()
            if stop and not ends:
                progress.say(f"stopped by SIGTERM after step {done}; continue with --resume")
                progress.killed = True
                return done
            heartbeat.beat("waiting for data", number + 2)
            waiting = time.perf_counter()
    return max(first, config.last_step)


def _manifest(config: RunConfig, progress: Progress, belongs: checkpoint.Belongs, done: int) -> checkpoint.CheckpointManifest:
    """Of the checkpoint after `done` steps, its files' digests still missing."""
    figures = progress.figures()
    if config.keep_best and not figures:
        progress.say(f"warning: keep_best = {config.keep_best}: found no such metric since the last checkpoint; this one is not compared")
    return checkpoint.CheckpointManifest(
        step=done,
        world_size=comm.world_size(),
        zero_stage=belongs.zero_stage,
        precision=belongs.precision,
        content=config.content(),
        data_digest=belongs.data_digest,
        tracked_run=progress.run_id,
        figures=figures,
        files={},
    )


def _resume_point(command: Command, belongs: checkpoint.Belongs) -> tuple[Path, checkpoint.CheckpointManifest] | None:
    """The verified checkpoint to continue from, None for a fresh run.

    Raises:
        DataError: --resume without a checkpoint, or a fresh run into a folder that has one.
    """
    root = command.config.out / "checkpoints"
    folder, read = None, None
    if comm.rank() == 0:  # alone: on a network file system another rank may see other folders
        if command.fall_back:
            folder, read = checkpoint.newest_whole(root, partial(print, flush=True)) or (None, None)
        else:
            folder = commit.newest(root)
    folder = comm.broadcast_object(folder)
    if command.fall_back and folder is None:
        if comm.rank() == 0:
            print(f"--resume auto: found no whole checkpoint in {root}; starting at the first step", flush=True)
        return None
    if command.resume and folder is None:
        raise DataError(f"{root}: found no checkpoint, but --resume asks to continue one; check --out, or start without --resume")
    if not command.resume and folder is not None:
        raise DataError(f"{root}: found {folder.name} of an earlier run; continue it with --resume, or name another --out")
    if folder is None:
        return None
    return folder, checkpoint.check(folder, command.config, belongs, read)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
