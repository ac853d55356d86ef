"""A plan in words: tables, what does not fit, and which setting would make it fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.config import RunConfig
from pipeline.plan import compute, memory
from pipeline.plan.memory import GIB, Held
from pipeline.plan.sizes import Model
from pipeline.plan.work import Work
from pipeline.train.sharding import Offload, OffloadOptimizer, OffloadParam, Sharding, Zero


@dataclass(frozen=True)
class Machine:
    """What there is to run on; all but the counts are the reader's word."""

    nodes: int
    gpus: int
    """Per node."""
    gpu_memory: float
    """GiB of one GPU."""
    flops: float
    """Peak operations a second of one GPU in the run's precision."""
    utilisation: float
    """Share of the peak that is reached."""

    @property
    def ranks(self) -> int:
        """One per GPU."""
        return self.nodes * self.gpus


@dataclass(frozen=True)
class Plan:
    """Everything a report needs."""

    config: RunConfig
    model: Model
    work: Work
    sharding: Sharding
    machine: Machine

    def held(self, sharding: Sharding | None = None, work: Work | None = None, checkpointing: bool | None = None) -> Held:
        """Memory of one GPU, as the run is set or otherwise."""
        settings = self.config.model
        checkpointing = settings.gradient_checkpointing if checkpointing is None else checkpointing
        mask, averaged = settings.attention == "sdpa", self.config.ema.decay is not None
        sizes = self.model, work or self.work, sharding or self.sharding, self.machine.ranks
        return memory.of_one_gpu(*sizes, checkpointing, mask, averaged)

    def fits(self, **changes) -> bool:
        """Whether one GPU holds it."""
        return sum(self.held(**changes).gpu.values()) <= self.machine.gpu_memory * GIB

    @property
    def operations(self) -> float:
        """Of one step."""
        settings = self.config.model
        once = compute.forward(self.model, self.work, settings.attention == "sdpa")
        return compute.step(self.model, once, self.work.chunks(self.machine.ranks) > 1, settings.gradient_checkpointing)

    @property
    def step_seconds(self) -> float:
        """Expected."""
        return compute.seconds(self.operations, self.machine.ranks, self.machine.flops, self.machine.utilisation)


def stages(sharding: Sharding) -> dict[str, Sharding]:
    """The file's precision under every way of sharding, for comparison; the file's own sizes where the stage reads them."""
    zero = sharding.zero_optimization
    common = {"overlap_comm": zero.overlap_comm, "reduce_bucket_size": zero.reduce_bucket_size}
    own = {name: getattr(zero, name) for name in ("stage3_max_live_parameters", "stage3_prefetch_bucket_size")} if zero.stage == 3 else {}
    offloaded = {"offload_optimizer": OffloadOptimizer(device="cpu"), "offload_param": OffloadParam(device="cpu")}
    out = {f"ZeRO-{stage}": Zero(stage=stage, **common) for stage in (1, 2)}
    if not sharding.bf16.enabled:
        out = {"ZeRO-0": Zero(stage=0, **common)} | out
    out |= {"ZeRO-3": Zero(stage=3, **common, **own), "ZeRO-3, offloaded": Zero(stage=3, **common, **own, **offloaded)}
    return {name: Sharding(zero_optimization=zero, bf16=sharding.bf16) for name, zero in out.items()}


def problems(plan: Plan) -> list[str]:
    """What stands in the run's way, apart from memory."""
    out, ranks, batch, zero = [], plan.machine.ranks, plan.config.batch, plan.sharding.zero_optimization
    if batch.pairs % ranks:
        below, above = (batch.pairs // ranks * ranks, (batch.pairs // ranks + 1) * ranks)
        out.append(f"batch.pairs = {batch.pairs} does not divide over {ranks} GPUs: the nearest that do are {below} and {above}")
    if zero.zero_hpz_partition_size > 1 and ranks % zero.zero_hpz_partition_size:
        out.append(f"zero_hpz_partition_size = {zero.zero_hpz_partition_size} does not divide {ranks} GPUs: set it to the GPUs of a node")
    return out


def remedies(plan: Plan) -> list[str]:
    """Single settings that would make the run fit; where none does, several together."""
    smaller = [size for size in (2**n for n in range(20, 8, -1)) if plan.work.row_tokens <= size < plan.work.chunk_tokens]

    def chunk(**changes) -> list[str]:
        fitting = [size for size in smaller if plan.fits(work=replace(plan.work, chunk_tokens=size), **changes)]
        return [f"--batch.chunk-tokens {size}" for size in fitting[:1]]

    found = chunk()
    if not plan.config.model.gradient_checkpointing and plan.fits(checkpointing=True):
        found.append("--model.gradient-checkpointing")
    other = {name: sharding for name, sharding in stages(plan.sharding).items() if sharding != plan.sharding}
    found += [f"{name} in --deepspeed" for name, sharding in other.items() if plan.fits(sharding=sharding)][:1]
    if found:
        return found
    for name, sharding in {"": plan.sharding, ", ZeRO-3 with offloading in --deepspeed": other["ZeRO-3, offloaded"]}.items():
        settings = ["--model.gradient-checkpointing"] if plan.fits(sharding=sharding, checkpointing=True) else []
        settings = settings or [f"--model.gradient-checkpointing {setting}" for setting in chunk(sharding=sharding, checkpointing=True)]
        if settings:
            return [settings[0] + name]
    return []


def text(plan: Plan) -> str:
    """The whole report."""
    lines = [*_model(plan), *_step(plan), *_memory(plan), *_time(plan)]
    return "\n".join(lines)


def _model(plan: Plan) -> Iterator[str]:
    model = plan.model
    yield f"model {model.name}: {model.total:,} parameters, {model.trained:,} train; {model.chorus} chorus tokens"
    for part, count in model.parts.items():
        yield f"  {part:10}{count['trained']:>16,} of {count['total']:>14,}"


def _step(plan: Plan) -> Iterator[str]:
    work, config, ranks = plan.work, plan.config, plan.machine.ranks
    yield f"data   {work.source}"
    rows = "unknown" if work.rows is None else f"{work.rows:,}"
    yield f"  {rows} rows in {work.shards:,} shards; {config.steps * work.pairs:,} pairs are drawn in {config.steps:,} steps"
    yield (
        f"step   {work.pairs} pairs and {config.batch.conversations} conversations over {ranks} GPUs: {work.tokens:,.0f} tokens, "
        f"{work.image_share:.0%} of them of images; {work.chunks(ranks)} chunks of {work.chunk_tokens} tokens a GPU"
    )
    yield f"  in all {work.tokens * config.steps:.3g} tokens"
    yield from (f"  PROBLEM: {problem}" for problem in problems(plan))


def _memory(plan: Plan) -> Iterator[str]:
    limit = plan.machine.gpu_memory
    yield f"memory of one GPU, GiB ({config_name(plan)}; {plan.machine.nodes} x {plan.machine.gpus} GPUs of {limit:g} GiB)"
    held = plan.held()
    for name, size in held.gpu.items():
        yield f"  {name:26}{size / GIB:9.2f}"
    total = sum(held.gpu.values()) / GIB
    yield f"  {'in all':26}{total:9.2f}   {'fits' if total <= limit else 'DOES NOT FIT'}"
    if held.host:
        yield f"  host memory for it        {sum(held.host.values()) / GIB:9.2f}   times {plan.machine.gpus} a node"
    if total > limit:
        yield "  it would fit with: " + ("; or ".join(remedies(plan)) or "more or larger GPUs only")
    yield f"  {'other ways to shard':22}{'with recomputed blocks':>24}{'without':>12}{'on the host':>14}"
    for name, sharding in stages(plan.sharding).items():
        with_, without = (sum(plan.held(sharding=sharding, checkpointing=on).gpu.values()) / GIB for on in (True, False))
        host = sum(plan.held(sharding=sharding).host.values()) / GIB
        yield f"  {name:22}{with_:>24.1f}{without:>12.1f}{host:>14.1f}"


def _time(plan: Plan) -> Iterator[str]:
    machine, steps = plan.machine, plan.config.steps
    yield (
        f"time   {plan.operations:.3g} operations a step; at {machine.utilisation:.0%} of {machine.flops:.3g}/s a GPU (both assumed) "
        f"{plan.step_seconds:.1f} s a step, {steps * plan.step_seconds / 3600:.1f} hours in all, "
        f"{steps * plan.step_seconds / 3600 * machine.ranks:,.0f} GPU hours"
    )


def config_name(plan: Plan) -> str:
    """The DeepSpeed file's name with its stage and precision."""
    zero, precision = plan.sharding.zero_optimization, "bf16" if plan.sharding.bf16.enabled else "fp32"
    offloaded = [part.device for part in (zero.offload_optimizer, zero.offload_param) if isinstance(part, Offload)]
    return f"{plan.config.deepspeed}: ZeRO-{zero.stage}, {precision}" + (f", offloaded to {offloaded[0]}" if offloaded else "")
