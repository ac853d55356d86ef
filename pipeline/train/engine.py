"""The only file that imports deepspeed: building the engine, one step's mechanics, and gathering what ZeRO has scattered.

How to shard and in which precision is the DeepSpeed JSON's part: `ds_config.load_deepspeed_config` reads it.
"""

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import deepspeed
import torch
from deepspeed.runtime import compiler
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from torch import Tensor
from transformers.integrations import HfDeepSpeedConfig

from data_prep.samples import DataError
from pipeline import comm
from pipeline.batches.batch import PackedBatch
from pipeline.config import RunConfig
from pipeline.model.crem import load_backbone
from pipeline.model.kernels import apply_kernels
from pipeline.model.trainable import make_trainable, plain_weights
from pipeline.train import averaging, frozen, reshard
from pipeline.train.checkpoint import UnwrittenError
from pipeline.train.ds_config import load_deepspeed_config as load_deepspeed_config  # here too, for whoever builds an engine
from pipeline.train.groups import parameter_groups, rate_shares, set_rates

LAYOUT = "layout"
"""The key of `Engine._layout` in what DeepSpeed saves for its caller (client_state)."""


def init_distributed(timeout_minutes: float) -> torch.device:
    """Join the process group the launcher described in the environment; returns this rank's device."""
    accelerator = deepspeed.get_accelerator()
    if accelerator.device_name() == "cpu":
        # on CPUs DeepSpeed compiles a shared-memory collective at first use, which only its inference engine calls
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # every ZeRO optimizer imports Muon to see that it is not Muon, and that import hands two functions to torch.compile, which costs each
    # rank seconds of imports; nothing here is trained with Muon
    compiler.compile = lambda: compiler.dummy_decorator
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
        self._zero = copy.deepcopy(ds_config["zero_optimization"])
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
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, config.optim.weight_decay, rate_shares(config)),
            lr=config.optim.learning_rate,
            betas=(config.optim.beta1, config.optim.beta2),
            fused=True,  # one pass over memory, on an offloaded optimizer's host too; no operator of DeepSpeed's own, no compiler
        )
        averaging.follow(optimizer, config.ema)
        self._adamw = optimizer
        self.engine, *_ = deepspeed.initialize(model=self.model, optimizer=optimizer, config=ds_config)
        self._files = self.engine.checkpoint_engine = Files()
        # scripts for use without this program: code that nothing here runs, written by rank 0 alone between two collectives
        self.engine._copy_recovery_script = lambda folder: None

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
        """Clip and update; returns the gradient norm before clipping, and whether the step was applied: not where it is not finite."""
        set_rates(self.engine.optimizer, learning_rate)
        if self.ds_config["zero_optimization"]["stage"] == 0 and not self._finite():
            self.engine.optimizer.zero_grad()
            return math.inf, False
        self.engine.step()
        return float(self.engine.get_global_grad_norm() or 0.0), bool(self.engine.was_step_applied())

    def _finite(self) -> bool:
        """Whether the whole gradient is finite: without ZeRO each rank has it, and DeepSpeed, which looks under ZeRO, does not look."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return all(bool(gradient.isfinite().all()) for gradient in gradients)

    def save(self, folder: Path, tag: str) -> None:
        """Write this rank's share of the weights that train, and of the optimizer's state (collective).

        Frozen weights stay in the checkpoint that the run started from; their digest is written in their place.

        Raises:
            UnwrittenError: the disk refused a file of this rank.
        """
        client_state = {frozen.DIGEST: self._frozen_digest, LAYOUT: self._layout}
        self._files.problem = None
        self.engine.save_checkpoint(str(folder), tag=tag, client_state=client_state, save_latest=False, exclude_frozen_parameters=True)
        if self._files.problem:
            raise UnwrittenError(self._files.problem)

    def load(self, folder: Path, tag: str) -> None:
        """Read back what `save` wrote, in this layout or another (collective); the caller has verified every file's digest.

        Raises:
            DataError: there is nothing to load, or it cannot go on under this layout, or the frozen weights of this model are not those
                of the run that was saved.
        """
        saved, problem = None, None
        try:
            saved = reshard.header(folder / tag)
        except DataError as error:
            problem = str(error)
        else:
            problem = None if saved.get(frozen.DIGEST) == self._frozen_digest else frozen.other_weights(folder)
        # a rank that stopped alone would leave the others waiting
        if problem := comm.agree(problem):
            raise DataError(problem)
        if self._zero["stage"] and saved.get(LAYOUT) != self._layout:  # ZeRO-0 has no layout
            self._load_resharded(folder / tag, saved)
        elif self.engine.load_checkpoint(str(folder), tag=tag, custom_load_fn=frozen.load_trained)[0] is None:
            raise DataError(f"{folder}/{tag}: DeepSpeed found nothing to load")

    def _load_resharded(self, folder: Path, saved: dict) -> None:
        """Fill this engine's own shards from those of another layout; DeepSpeed's loader takes them in and derives the weights."""
        problem, state = None, {}
        reshard.check_zero(saved.get(LAYOUT, {}).get("zero_optimization", {}), self._zero)
        fresh = self.engine.optimizer.state_dict()
        slices = self._slices(fresh)
        try:
            state = reshard.read(folder, saved["param_shapes"], fresh, slices, self._trained(), comm.rank())
        except DataError as error:
            problem = str(error)
        if problem := comm.agree(problem):
            raise DataError(f"{folder}: {problem}")
        self._take_in(state)
        for name in ("global_steps", "global_samples", "skipped_steps"):
            setattr(self.engine, name, saved[name])

    def _take_in(self, state: dict, moments: bool = True) -> None:
        """Load this rank's optimizer state, and derive the weights of the forward pass from its masters (collective; ZeRO-1 to 3)."""
        optimizer, stage3 = self.engine.optimizer, reshard.is_zero3(state)
        if stage3:  # small parameters stay whole beside their shards; they are cut before loading, and gathered anew after it
            optimizer.checkpoint_event_prologue()
        optimizer.load_state_dict([state] * comm.world_size(), load_optimizer_states=moments, load_from_fp32_weights=True)
        if stage3:
            optimizer.checkpoint_event_epilogue()
        else:
            optimizer.update_lp_params()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the weights are their moving averages; then they are, bit for bit, what they were (collective).

        Weights that never had an update stay what they are. An error inside leaves the averages in place: a rank that raised alone must
        not begin a collective.
        """
        self._exchange()
        yield
        self._exchange()

    def _exchange(self) -> None:
        averaging.exchange(self._adamw)
        if self._zero["stage"]:
            self._take_in(self.engine.optimizer.state_dict(), moments=False)

    def _slices(self, fresh: dict) -> list[reshard.Slices]:
        """By rank, what this engine's optimizer shards hold (collective)."""
        if not reshard.is_zero3(fresh):
            return comm.gather_objects(reshard.zero12_slices(fresh))
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        groups = self.engine.optimizer.fp16_groups
        shapes = [{names[id(parameter)]: parameter.ds_shape for parameter in group} for group in groups]
        return reshard.zero3_slices(shapes, comm.world_size())

    def _trained(self) -> dict[str, int]:
        """Elements of every parameter that trains."""
        named = self.model.named_parameters()
        return {name: getattr(parameter, "ds_numel", parameter.numel()) for name, parameter in named if parameter.requires_grad}

    @property
    def _layout(self) -> dict:
        """What decides which rank holds what."""
        return {"ranks": comm.world_size(), "zero_optimization": self._zero}

    @cached_property
    def _frozen_digest(self) -> str:
        """They are frozen, so once is enough (collective)."""
        return frozen.digest(self.model, gather)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter as a plain checkpoint has it (`plain_weights`), whole, one at a time (collective)."""
        yield from plain_weights(self.model, gather)

    def log_scale(self) -> float:
        """The learnt temperature's log-scale (collective)."""
        parameter = self.model.temperature.log_scale
        with gather([parameter]):
            return float(parameter.detach())


class Files(TorchCheckpointEngine):
    """DeepSpeed's writer of checkpoint files, but that it keeps the first error instead of raising it.

    DeepSpeed goes from file to file through collectives; a rank that left them half-way would leave the others waiting there.
    """

    def __init__(self):
        super().__init__()
        self.zipfile_serialization = True  # DeepSpeed's own default
        self.problem: str | None = None
        """What the disk said, where it refused a file."""

    def save(self, state_dict: dict, path: str) -> None:
        """Write one file; what comes after an error is not written."""
        if self.problem:
            return
        try:
            super().save(state_dict, path)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter, whatever the disk said
            self.problem = f"{path}: {error}"


def gather(parameters: list[torch.nn.Parameter]) -> deepspeed.zero.GatheredParameters:
    """A context in which parameters that ZeRO-3 has partitioned are whole on every rank (collective)."""
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    return deepspeed.zero.GatheredParameters(partitioned, enabled=bool(partitioned))
