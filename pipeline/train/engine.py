"""The only file that imports deepspeed: building the engine, one step's mechanics, and gathering what ZeRO has scattered.

How to shard and in which precision is the DeepSpeed JSON's part: `ds_config.load_deepspeed_config` reads it.
"""

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
from pipeline.model.kernels import apply_kernels
from pipeline.model.trainable import make_trainable, plain_weights
from pipeline.train import frozen
from pipeline.train.ds_config import load_deepspeed_config as load_deepspeed_config  # here too, for whoever builds an engine
from pipeline.train.groups import parameter_groups, rate_shares, set_rates


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
        apply_kernels(backbone, config.model)
        self.model = make_trainable(backbone, config.model, config.seed, gather, config.loss.learn_temperature)
        self.model.train()
        if config.model.gradient_checkpointing:
            self.model.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        offloaded = "offload_optimizer" in ds_config["zero_optimization"]
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.optim.weight_decay, rate_shares(config)),
            lr=config.optim.learning_rate,
            betas=(config.optim.beta1, config.optim.beta2),
            fused=True if offloaded else None,  # one vectorised pass on the CPU, without DeepSpeed's own operator and its compiler
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
