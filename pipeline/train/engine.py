"""The only file that imports deepspeed: building the engine, one step's mechanics, and gathering what ZeRO has scattered.

The DeepSpeed JSON says how to shard and in which precision. Batch, learning rate and clipping belong to the run config and are refused
in the JSON, so that no value is stated twice. Every key whose default has changed between DeepSpeed versions is set here explicitly.
"""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import deepspeed
import torch
from torch import Tensor
from transformers.integrations import HfDeepSpeedConfig

from data_prep.samples import DataError
from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.config import RunConfig
from pipeline.model.crem import load_backbone
from pipeline.model.trainable import make_trainable, plain_weights
from pipeline.train import frozen
from pipeline.train.groups import parameter_groups, rate_shares, set_rates

OWNED = {
    "train_batch_size": "batch.pairs",
    "train_micro_batch_size_per_gpu": "batch.chunk_tokens",
    "gradient_accumulation_steps": "batch.chunk_tokens",
    "gradient_clipping": "optim.clip",
    "optimizer": "optim",
    "scheduler": "optim.schedule",
}
"""Keys of a DeepSpeed config that the run config owns, and where."""

KNOWN = {"zero_optimization", "bf16", "aio", "wall_clock_breakdown", "comms_logger", "flops_profiler"}
"""Top-level keys accepted in the JSON; DeepSpeed itself ignores a misspelt one without a word."""


def load_deepspeed_config(path: Path, clip: float) -> dict:
    """Read a DeepSpeed JSON and complete it.

    Raises:
        DataError: no such file, not JSON, an unknown key, or a key the run config owns (named with its place).
    """
    if not path.is_file():
        raise DataError(f"{path}: found no such DeepSpeed config; expected a JSON file, e.g. ds_configs/zero3.json")
    try:
        config = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: found invalid JSON ({error}); expected a DeepSpeed configuration") from error
    for key in config:
        if key in OWNED:
            raise DataError(f"{path}: found {key}, which the run config owns; remove it here and set --{OWNED[key]}")
        if key not in KNOWN:
            raise DataError(f"{path}: found the unknown key {key}; expected one of {sorted(KNOWN)}")
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


def init_distributed(timeout_minutes: float) -> torch.device:
    """Join the process group the launcher described in the environment; returns this rank's device."""
    accelerator = deepspeed.get_accelerator()
    if accelerator.device_name() == "cpu":
        # on CPUs DeepSpeed compiles a shared-memory collective at first use, which only its inference engine calls
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(timeout=timedelta(minutes=timeout_minutes), verbose=False)
    if accelerator.device_name() == "cpu":
        return torch.device("cpu")
    local_rank = int(os.environ["LOCAL_RANK"])
    accelerator.set_device(local_rank)
    return torch.device(accelerator.device_name(local_rank))


class Engine:
    """A DeepSpeed engine over `Crem`, reduced to what the training step needs."""

    def __init__(self, config: RunConfig, ds_config: dict):
        self.ds_config = ds_config
        stage3 = ds_config["zero_optimization"]["stage"] == 3
        # while this object lives, from_pretrained creates every weight already partitioned (ZeRO-3 only)
        self._hf_config = HfDeepSpeedConfig(ds_config) if stage3 else None
        dtype = torch.bfloat16 if ds_config.get("bf16", {}).get("enabled") else torch.float32
        backbone = load_backbone(config.model.checkpoint, dtype, config.model.attention)
        self.model = make_trainable(backbone, config.model, config.seed, gather, config.loss.learn_temperature)
        self.model.train()
        if config.model.gradient_checkpointing:
            self.model.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.optim.weight_decay, rate_shares(config)),
            lr=config.optim.learning_rate,
            betas=(config.optim.beta1, config.optim.beta2),
            fused=True,  # one pass over memory; on a CPU a sixth of the time
        )
        self.engine, *_ = deepspeed.initialize(model=self.model, optimizer=optimizer, config=ds_config)

    def forward(self, batch: PackedBatch) -> tuple[Tensor, ...]:
        """`Crem.forward` through the engine."""
        return self.engine(batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate the gradient of `loss`. `last` marks the step's final chunk, where gradients are reduced over ranks.

        DeepSpeed averages over ranks; the caller's loss is a share of a global sum, so it is scaled up by the number of ranks here.
        """
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * comm.world_size(), scale_wrt_gas=False)

    def step(self, learning_rate: float) -> tuple[float, bool]:
        """Clip and update; returns the gradient norm before clipping, and whether DeepSpeed applied the step."""
        set_rates(self.engine.optimizer, learning_rate)
        self.engine.step()
        return float(self.engine.get_global_grad_norm() or 0.0), bool(self.engine.was_step_applied())

    def save(self, folder: Path, tag: str) -> None:
        """Write this rank's share of the weights that train, and of the optimizer's state (collective).

        Frozen weights stay in the checkpoint that the run started from; their digest is written in their place.
        """
        client_state = {frozen.DIGEST: self._frozen_digest}
        self.engine.save_checkpoint(str(folder), tag=tag, client_state=client_state, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path, tag: str) -> None:
        """Read back what `save` wrote (collective); the caller has verified every file's digest.

        Raises:
            DataError: there is nothing to load, or the frozen weights of this model are not those of the run that was saved.
        """
        loaded, client_state = self.engine.load_checkpoint(str(folder), tag=tag, custom_load_fn=frozen.load_trained)
        if loaded is None:
            raise DataError(f"{folder}/{tag}: DeepSpeed found nothing to load")
        same = client_state.get(frozen.DIGEST) == self._frozen_digest
        # a rank that stopped alone would leave the others waiting
        if problem := comm.agree(None if same else frozen.other_weights(folder)):
            raise DataError(problem)

    @cached_property
    def _frozen_digest(self) -> str:
        """Of this rank's share; they are frozen, so once is enough."""
        return frozen.digest(self.model)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter as a plain checkpoint has it (`plain_weights`), whole, one at a time (collective)."""
        yield from plain_weights(self.model, gather)

    def log_scale(self) -> float:
        """The learnt temperature's log-scale (collective)."""
        parameter = self.model.temperature.log_scale
        with gather([parameter]):
            return float(parameter.detach())


def gather(parameters: list[torch.nn.Parameter]) -> deepspeed.zero.GatheredParameters:
    """A context in which parameters that ZeRO-3 has partitioned are whole on every rank (collective)."""
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    return deepspeed.zero.GatheredParameters(partitioned, enabled=bool(partitioned))
