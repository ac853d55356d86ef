"""One rank of a distributed test: runs the scenarios named in a JSON file and saves what came out. Started by `ranks.run_ranks`."""

import json
import os
import sys
import time
from pathlib import Path

import torch

from data_prep.encode import Encoder
from data_prep.samples import DataError
from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.batches.collate import Collator
from pipeline.batches.loader import StepLoader
from pipeline.batches.reader import ShardReader
from pipeline.config import RunConfig
from pipeline.model.crem import load_backbone
from pipeline.model.trainable import make_trainable, plain_weights
from pipeline.train.engine import (
    Engine,
    init_distributed,
    load_deepspeed_config,
)
from pipeline.train.export import export
from pipeline.train.groups import parameter_groups, rate_shares, set_rates
from pipeline.train.held_out import HeldOut
from pipeline.train.pace import PaceMeter
from pipeline.train.schedule import learning_rate
from pipeline.train.step import train_step


class PlainEngine:
    """The reference: one process, plain PyTorch, the same optimizer and clipping."""

    def __init__(self, config: RunConfig):
        backbone = load_backbone(config.model.checkpoint, torch.float32)
        self.model = make_trainable(backbone, config.model, config.seed, learn_temperature=config.loss.learn_temperature).train()
        self.clip = config.optim.clip
        groups = parameter_groups(self.model, config.optim.weight_decay, rate_shares(config))
        self.optimizer = torch.optim.AdamW(groups, betas=(config.optim.beta1, config.optim.beta2))

    def forward(self, batch: PackedBatch):
        return self.model(batch)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        loss.backward()

    def step(self, rate: float) -> tuple[float, bool]:
        set_rates(self.optimizer, rate)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm), True

    def weights(self):
        yield from plain_weights(self.model)

    def log_scale(self) -> float:
        return float(self.model.temperature.log_scale)


class Scaled:
    """An engine whose backward multiplies the gradient, the loss that was reported being what it was."""

    def __init__(self, engine, factor: float):
        self.engine, self.factor = engine, factor

    def __getattr__(self, name: str):
        return getattr(self.engine, name)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        self.engine.backward(loss * self.factor, last)


def _paced(engine, slow: int) -> PaceMeter:
    """A meter whose sample layer takes 20 ms longer on one rank."""
    pace = PaceMeter(engine.model)
    if comm.rank() == slow:
        pace.sample.register_forward_pre_hook(lambda module, args: time.sleep(0.1))  # after the meter's own
    return pace


def build(scenario: dict, config: RunConfig):
    """The engine a scenario asks for: its stage (None: the reference), and more of DeepSpeed's ZeRO settings under "zero"."""
    if scenario["stage"] is None:
        return PlainEngine(config)
    ds_config = load_deepspeed_config(config.deepspeed, config.optim.clip)
    # nothing is small enough to be kept whole: ZeRO-3 gathers every parameter of these small models, too
    whole = {"stage3_param_persistence_threshold": 0}
    ds_config["zero_optimization"] |= {"stage": scenario["stage"]} | whole | scenario.get("zero", {})
    return Engine(config, ds_config)


def run(scenario: dict) -> dict:
    """Train a few steps; returns losses, the number of chunks, gradient norms and final weights.

    "poison": the step in which rank 0 reads NaN; "poison gradient": (step, factor by which the last rank's gradient is multiplied);
    "slow": the rank whose sample layer sleeps, as seen by a PaceMeter; "restart": the step before which the engine is saved, built anew
    and loaded, "from": on which checkpoint it is then built, if on another; "export": where to export to at the end. "load": (step,
    folder) to go on from; "save": (steps done, folder) to save at. "follow": keep the weights after every step. With ema.decay, the
    averages are returned and, where there is an "export", exported to that name and "-ema".
    """
    config = RunConfig.model_validate(scenario["config"])
    engine = build(scenario, config)
    encoder = Encoder(config.model.checkpoint)
    collator = Collator(encoder.images, engine.model.backbone.model.get_rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
    loader = StepLoader(ShardReader(config.data.shards, encoder, verify=False), collator, config, comm.rank(), comm.world_size())
    unseen = ShardReader(config.evaluate.shards, encoder) if config.evaluate.shards else None
    looks = HeldOut(unseen, collator, config, comm.rank(), comm.world_size()) if unseen else None
    pace = _paced(engine, scenario["slow"]) if "slow" in scenario else None
    results = []
    first, source = scenario.get("load", (0, None))
    if source:
        try:
            engine.load(Path(source), "state")
        except DataError as error:
            return {"results": results, "refused": str(error)}
    for number in range(first, config.steps):
        work = loader.step(number)
        bad_step, factor = scenario.get("poison gradient", (None, None))
        poisoned = number in (scenario.get("poison"), bad_step)
        if scenario.get("poison") == number and comm.rank() == 0:
            work.chunks[0].pixels.fill_(float("nan"))
        if scenario.get("restart") == number:
            folder = Path(scenario["out"]).with_suffix(".saved")
            engine.save(folder, "state")
            comm.barrier()
            model = config.model.model_copy(update={"checkpoint": scenario.get("from", config.model.checkpoint)})
            engine = build(scenario, config.model_copy(update={"model": model}))
            try:
                engine.load(folder, "state")
            except DataError as error:
                return {"results": results, "refused": str(error)}
        averages = config.ema.decay is not None and poisoned
        before, averages_before = _weights(engine) if poisoned else {}, _averages(engine) if averages else {}
        rate = learning_rate(config.optim, number, config.steps)
        trained = Scaled(engine, float(factor)) if bad_step == number and comm.rank() == comm.world_size() - 1 else engine
        result = train_step(trained, work, loader.blank(), config.loss, rate, "cpu", (config.seed, number))
        record = vars(result) | {"own_image_tokens": sum(int(chunk.image_tokens) for chunk in work.chunks), "chorus": work.chorus}
        record["keys"] = work.keys.tolist()
        if poisoned:
            after = _weights(engine)
            record["unchanged"] = all(before[name].equal(after[name]) for name in before)
        if averages:
            after = _averages(engine)
            record["average_unchanged"] = all(averages_before[name].equal(after[name]) for name in after)
        if scenario.get("follow"):
            record["weights"] = _weights(engine)
        if looks and looks.due(number + 1):
            record["held_out"] = vars(looks.measure(engine, torch.device("cpu")))
        record["pace"] = pace.read() if pace else None
        results.append(record)
        done, target = scenario.get("save", (None, None))
        if done == number + 1:
            engine.save(Path(target), "state")
            comm.barrier()
    out = {"results": results, "weights": _weights(engine), "optimized": optimized(engine)}
    if config.ema.decay is not None:
        out["averaged"] = _averages(engine)
    out["log_scale"] = engine.log_scale() if config.loss.learn_temperature else None
    out["compiler"] = "torch._inductor.compile_fx" in sys.modules
    if "export" in scenario:
        engine.model.eval()
        with torch.no_grad():
            out["embeddings"], out["answer_losses"] = engine.forward(work.chunks[0])
        out["batch"] = vars(work.chunks[0])
        export(engine, config.model.checkpoint, Path(scenario["export"]), {"step": config.steps})
        if config.ema.decay is not None:
            with engine.averaged():
                export(engine, config.model.checkpoint, Path(scenario["export"] + "-ema"), {"step": config.steps})
    return out


def optimized(engine) -> int:
    """Parameters that the optimizer was given."""
    model = engine.model
    return sum(getattr(p, "ds_numel", p.numel()) for group in parameter_groups(model, 0.0) for p in group["params"])


def _weights(engine) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in engine.weights()}


def _averages(engine: Engine) -> dict[str, torch.Tensor]:
    with engine.averaged():
        return _weights(engine)


def main(run=run) -> None:
    """Run every scenario of the file named on the command line."""
    scenarios = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1 or any(s["stage"] is not None for s in scenarios):
        init_distributed(timeout_minutes=2)
    for scenario in scenarios:
        out = run(scenario)
        if comm.rank() == 0:
            torch.save(out, scenario["out"])
        else:
            torch.save({"results": out["results"]}, f"{scenario['out']}.rank{comm.rank()}")
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # the next scenario may not be partitioned
    comm.barrier()
    comm.shutdown()


if __name__ == "__main__":
    main()
