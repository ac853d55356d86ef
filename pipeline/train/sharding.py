"""The DeepSpeed JSON, typed: what may stand in it, and what contradicts what. `ds_config` reads it.

It says how to shard and in which precision, nothing else: batch, learning rate and clipping belong to the run config and are refused here,
so that no value is stated twice. DeepSpeed itself takes a misspelt top-level key without a word, ignores keys that another ZeRO stage
would read, and changes defaults between releases; here an unknown key is refused with its place, a key that the stage does not read is a
conflict, and every accepted key is written out. Meanings: deepspeed.ai/docs/config-json and the docstrings of
`deepspeed.runtime.zero.config` (0.19.8). No DeepSpeed is imported, so a wrong file costs a second.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Keys(BaseModel):
    """Base of all groups: unknown keys and values of another type refused (DeepSpeed would take "3" for 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Offload(Keys):
    """Where optimizer states or weights lie between uses."""

    device: Literal["cpu", "nvme"]
    """nvme: files under nvme_path, through DeepSpeed's asynchronous I/O operator (libaio)."""
    nvme_path: str | None = None
    """A folder on a local NVMe disk of every node."""
    pin_memory: bool = True
    """Page-locked host memory: faster copies; cannot be swapped out."""
    buffer_count: int = Field(default=5, gt=0)
    """Buffers for swapping to NVMe: at least 4 for Adam (parameter, gradient, two moments)."""

    @model_validator(mode="after")
    def _a_path_where_there_is_a_disk(self) -> "Offload":
        if (self.device == "nvme") != (self.nvme_path is not None):
            raise ValueError(f"device = {self.device} with nvme_path = {self.nvme_path}; expected nvme_path with nvme, and only there")
        return self


class OffloadOptimizer(Offload):
    """Optimizer states and fp32 master weights; the update itself then runs on the CPU."""

    pipeline_read: bool = False
    """Read the next tile while this one is computed (NVMe)."""
    pipeline_write: bool = False
    """Write the last tile while this one is computed (NVMe)."""


class OffloadParam(Offload):
    """The partitioned 16-bit weights."""

    buffer_size: int = Field(default=100_000_000, gt=0)
    """Elements of a swap buffer (NVMe): no parameter may be larger."""
    max_in_cpu: int = Field(default=1_000_000_000, ge=0)
    """Elements kept in host memory nevertheless (NVMe)."""


class Zero(Keys):
    """zero_optimization. Sizes are elements, not bytes."""

    stage: Literal[0, 1, 2, 3]
    """0: nothing is sharded; 1: optimizer states; 2: gradients as well; 3: weights as well (ZeRO, Rajbhandari et al. 2020)."""
    overlap_comm: bool = True
    """Reduce gradients while the backward pass goes on."""
    contiguous_gradients: bool = True
    """Gradients are copied into one buffer as they are made: no fragmentation."""
    reduce_scatter: bool = True
    """Each rank receives its own part of the gradients only."""
    reduce_bucket_size: int = Field(default=200_000_000, gt=0)
    """Gradients reduced at a time."""
    allgather_partitions: bool = True
    """Stages 1, 2: updated weights by all-gather, not by broadcasts."""
    allgather_bucket_size: int = Field(default=200_000_000, gt=0)
    """Stages 1, 2: weights gathered at a time after the update."""
    round_robin_gradients: bool = False
    """Stages 1, 2: spreads the copying of gradients to the host over ranks; of use with offloading only."""
    sub_group_size: int = Field(default=1_000_000_000, gt=0)
    """Stage 3: parameters updated at a time."""
    stage3_prefetch_bucket_size: int = Field(default=200_000_000, ge=0)
    """Stage 3: weights fetched ahead of use."""
    stage3_param_persistence_threshold: int = Field(default=100_000, ge=0)
    """Stage 3: smaller parameters stay whole on every rank."""
    stage3_max_live_parameters: int = Field(default=1_000_000_000, ge=0)
    """Stage 3: gathered weights held at a time, at most."""
    stage3_max_reuse_distance: int = Field(default=1_000_000_000, ge=0)
    """Stage 3: a weight used again within that many is not released."""
    stage3_module_granularity_threshold: int = Field(default=0, ge=0)
    """Stage 3: modules with fewer parameters per submodule are fetched as one."""
    stage3_gather_16bit_weights_on_model_save: Literal[False] = False
    """Stage 3: this pipeline exports weights one at a time (`Engine.weights`) and never all at once."""
    zero_hpz_partition_size: int = Field(default=1, gt=0)
    """Stage 3: ranks (those of one node) that hold a second, complete copy of the 16-bit weights among them, so that backward passes gather
    within the node (ZeRO++, Wang et al. 2023); 1: off."""
    offload_optimizer: OffloadOptimizer | None = None
    offload_param: OffloadParam | None = None

    @model_validator(mode="after")
    def _keys_of_this_stage(self) -> "Zero":
        for key in sorted(self.model_fields_set):
            if self.stage not in STAGES.get(key, (0, 1, 2, 3)):
                readers = " and ".join(map(str, STAGES[key]))
                raise ValueError(f"{key} is read by stage {readers}, but stage = {self.stage}: remove it, or change stage")
        if self.zero_hpz_partition_size > 1 and self.offload_param is not None:
            raise ValueError("zero_hpz_partition_size keeps weights on the GPU and offload_param takes them away: remove one of them")
        return self


STAGES = {
    **{name: (3,) for name in Zero.model_fields if name.startswith("stage3_")},
    **{name: (3,) for name in ("sub_group_size", "zero_hpz_partition_size", "offload_param")},
    **{name: (1, 2) for name in ("allgather_partitions", "allgather_bucket_size", "round_robin_gradients")},
    "offload_optimizer": (1, 2, 3),
}
"""Keys that only some stages read, and which."""


class Bf16(Keys):
    """Weights and forward pass in bfloat16, masters and moments in float32."""

    enabled: bool
    check_grad_overflow: bool = True
    """Skip an update whose gradient is not finite."""


class Aio(Keys):
    """Asynchronous I/O for NVMe."""

    block_size: int = Field(default=1_048_576, gt=0)
    queue_depth: int = Field(default=8, gt=0)
    intra_op_parallelism: int = Field(default=1, gt=0)
    single_submit: bool = False
    overlap_events: bool = True


class Comms(Keys):
    """comms_logger."""

    enabled: bool
    verbose: bool = False
    prof_all: bool = True
    debug: bool = False


class Flops(Keys):
    """flops_profiler."""

    enabled: bool
    profile_step: int = Field(default=1, gt=0)
    module_depth: int = -1
    top_modules: int = Field(default=1, gt=0)
    detailed: bool = True


class Sharding(Keys):
    """The whole file."""

    zero_optimization: Zero
    bf16: Bf16 = Bf16(enabled=False)
    aio: Aio | None = None
    wall_clock_breakdown: bool = False
    comms_logger: Comms | None = None
    flops_profiler: Flops | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> "Sharding":
        zero = self.zero_optimization
        swaps = any(part is not None and part.device == "nvme" for part in (zero.offload_optimizer, zero.offload_param))
        if swaps and zero.stage != 3:
            raise ValueError(f"offloading to nvme needs stage 3, but stage = {zero.stage}: change stage, or take device cpu")
        if swaps != (self.aio is not None):
            raise ValueError("aio goes with device nvme: state both, or neither")
        if zero.stage == 0 and self.bf16.enabled:
            raise ValueError("stage 0 with bf16 would add up gradients in bfloat16: take stage 1, or switch bf16 off")
        return self

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight as the forward pass reads it."""
        return 2 if self.bf16.enabled else 4
