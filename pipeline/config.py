"""What a run is: one typed, frozen, validated object; it imports no torch, so a wrong value costs a second, not a job.

Every field is documented where it stands; unknown keys are refused; rules that span fields are checked at construction and say which
field to change. The DeepSpeed JSON holds sharding and precision only: what this file owns (batch, learning rate, clipping) is
refused there.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.track import TrackSettings


class Settings(BaseModel):
    """Base of all groups: immutable; unknown keys, NaN and infinity refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LoraSettings(Settings):
    """Low-rank adapters: W + (alpha / rank) B A (LoRA, Hu et al. 2021) on every linear layer of the language model."""

    rank: int = Field(default=16, gt=0)
    """Rank of the update: columns of B, rows of A."""
    alpha: float = Field(default=32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped in training; the masks depend on seed, step, rank and chunk alone."""


class ModelSettings(Settings):
    """Which model, and what of it trains."""

    checkpoint: str = "work/crem-init"
    """Checkpoint folder or hub id with chorus tokens (`python -m pipeline.model chorus`)."""
    attention: Literal["sdpa", "two_causal"] = "sdpa"
    """How the language model attends: sdpa under a dense boolean mask of row_tokens x row_tokens a row, or the same rule as plain causal
    attentions without a mask, for long rows. (Eager attention would add a boolean mask and hide nothing.)"""
    kernels: Literal["plain", "liger"] = "plain"
    """plain: the backbone's own modules; liger: fused norms and SwiGLU of the package liger-kernel, on GPUs (`model/kernels.py`)."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again in the backward pass: less memory, about a third more time."""
    train: Literal["full", "lora"] = "full"
    """full: every weight trains; lora: adapters and the chorus rows alone, everything else (the vision tower too) is frozen."""
    lora: LoraSettings = LoraSettings()
    """The adapters, where train is lora."""
    freeze_vision: bool = False
    """Freeze the vision tower with its merger; with train = lora it is frozen anyway."""

    @model_validator(mode="after")
    def _lora_where_it_is_asked_for(self) -> "ModelSettings":
        if self.train != "lora" and self.lora != LoraSettings():
            raise ValueError(
                f"model.lora is set, but model.train = {self.train} has no adapters: set model.train to lora, or leave model.lora out"
            )
        return self


class DataSettings(Settings):
    """Which shards, mixed how."""

    shards: Path = Path("work/shards")
    """Folder of prepared shards."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Weight by source name, e.g. mmeb_train/MSCOCO; 0 leaves it out; sources not named take rows ** mix_exponent."""
    mix_exponent: float = Field(default=1.0, ge=0)
    """1: sources in proportion to their rows; 0: all sources alike (as VLM2Vec). It is 1 / T of mixing by temperature."""
    caps: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    """The most distinct rows used of a source, by its name: a pseudo-random choice that depends on the seed. A larger cap keeps a smaller
    one's rows. Where the weight follows from the rows, it follows from these."""
    epochs: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """How often a source is gone through, by its name (1.5: once and a half, in whole sub-batches); then it is left out, and the others
    share its turns in proportion to their weights. Sources not named go on without end."""
    verify: bool = True
    """Digest every shard at start; switch off only where another job has just done it."""


class BatchSettings(Settings):
    """What one optimizer step sees, over all ranks."""

    pairs: int = Field(default=1024, gt=0)
    """Contrastive pairs a step, over all ranks: the number of in-batch candidates."""
    conversations: int = Field(default=256, ge=0)
    """Generation-only rows a step, over all ranks."""
    sub_batch: int = Field(default=64, gt=0)
    """Pairs in a row from one source, so that in-batch negatives are of the same kind (VLM2Vec-V2: 64)."""
    row_tokens: int = Field(default=2048, gt=0)
    """Tokens of a packed row; a longer sequence gets its own row."""
    chunk_tokens: int = Field(default=8192, gt=0)
    """Tokens of one forward pass on one rank. More sequences than that are run in chunks under gradient caching: the same gradient."""

    @model_validator(mode="after")
    def _whole_sub_batches(self) -> "BatchSettings":
        if self.pairs % self.sub_batch:
            raise ValueError(
                f"batch.pairs = {self.pairs} is not a multiple of batch.sub_batch = {self.sub_batch}; "
                "a step takes whole one-source sub-batches: change one of them"
            )
        if self.chunk_tokens < self.row_tokens:
            raise ValueError(f"batch.chunk_tokens = {self.chunk_tokens} is less than batch.row_tokens = {self.row_tokens}: raise it")
        return self


class ChorusSettings(Settings):
    """How many of the checkpoint's chorus tokens a step uses."""

    elastic: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Sizes k to train for, e.g. 1 2 4 8 16: each step uses the first k chorus tokens, k drawn evenly from these, the same on all ranks.
    The trained model then serves any k, since chorus tokens do not see later ones. Empty: every step uses all of them."""

    @field_validator("elastic")
    @classmethod
    def _rising(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if list(sizes) != sorted(set(sizes)):
            raise ValueError(f"chorus.elastic = {list(sizes)}: expected different sizes from small to large, e.g. 1 2 4 8 16")
        return sizes


class LossSettings(Settings):
    """L = retrieval_weight * L_r + generation_weight * L_g (CREM, joint objective)."""

    retrieval_weight: float = Field(default=1.0, ge=0)
    """a_r of the paper."""
    generation_weight: float = Field(default=0.5, ge=0)
    """a_g of the paper."""
    temperature: float = Field(default=0.02, gt=0)
    """InfoNCE temperature [the paper does not state it; 0.02 is the field's value]."""
    learn_temperature: bool = False
    """Learn the temperature from that start on (CLIP): one parameter, without weight decay; never under 0.01. It is a logarithm and moves
    by about its rate a step: with rates under 1e-4 it stays close to where it starts."""
    margin: float | None = Field(default=None, ge=-2, le=2)
    """Leave out a negative whose cosine to the query exceeds the positive's by more than this: probably an unlabelled match. None: off.
    0.1 takes out the obvious ones; under zero it also takes near misses (as long as all embeddings are alike, that is every negative,
    and nothing is learnt: watch loss/left_out)."""
    symmetric: bool = False
    """Also score each target against all queries, and average the two directions."""
    compression_probability: float = Field(default=0.5, ge=0, le=1)
    """p of z ~ Bernoulli(p): how often a sample's answer sees the chorus instead of the context."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> "LossSettings":
        if self.retrieval_weight == self.generation_weight == 0:
            raise ValueError("loss.retrieval_weight = 0 and loss.generation_weight = 0: nothing would be trained; raise one of them")
        if self.learn_temperature and self.temperature < 0.01:
            raise ValueError(
                f"loss.temperature = {self.temperature} with loss.learn_temperature: a learnt temperature is held at 0.01 or above, "
                "so it cannot start there. Raise loss.temperature, or switch loss.learn_temperature off"
            )
        return self


class RateSettings(Settings):
    """Peak learning rates of parts of the model, on the schedule of all other weights; None: theirs (optim.learning_rate).

    The rate of a part that this run freezes is of no effect."""

    embedding: float | None = Field(default=None, gt=0)
    """Token embeddings and, tied or not, the output head. From random weights a small model's wide distribution over words is what it
    learns last at the rate that suits its layers."""
    vision: float | None = Field(default=None, gt=0)
    """The vision tower and its merger; the field often takes a tenth of the language model's."""
    chorus: float | None = Field(default=None, gt=0)
    """The chorus tokens' embeddings where they train on their own (model.train lora); otherwise they are rows of the embedding."""
    temperature: float | None = Field(default=None, gt=0)
    """The logarithm of a learnt temperature (loss.learn_temperature); fine-tuning at 1e-5 would take 1e-3 or so here."""


class OptimSettings(Settings):
    """AdamW and its schedule."""

    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    rates: RateSettings = RateSettings()
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps over which the rate rises linearly from zero."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after warm-up, to final_share of the peak."""
    final_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak left at the last step."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay on matrices; biases and norms have none."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first moment decay."""
    beta2: float = Field(default=0.98, ge=0, lt=1)
    """AdamW's second moment decay."""
    clip: float = Field(default=1.0, gt=0)
    """Gradient norm above which the gradient is scaled down."""


class EmaSettings(Settings):
    """An exponential moving average of the weights that train, exported beside them; training itself is bit for bit the same."""

    decay: float | None = Field(default=None, gt=0, lt=1)
    """The average keeps this share of itself at every update and takes the rest from the weights, e.g. 0.999: it looks back over about
    1 / (1 - decay) updates. It costs 4 bytes for each trained parameter, shared out over ranks by ZeRO. None: no average."""
    update_after_step: int = Field(default=0, ge=0)
    """Updates through which the average is the weights themselves (the first one always); averaging starts there."""

    @model_validator(mode="after")
    def _an_average_to_start(self) -> "EmaSettings":
        if self.decay is None and self.update_after_step:
            raise ValueError(f"ema.update_after_step = {self.update_after_step}, but there is no average: set ema.decay, or leave it out")
        return self


class EvaluateSettings(Settings):
    """Looks at held-out rows while training; training itself is bit for bit the same with and without."""

    shards: Path | None = None
    """Folder of held-out rows, prepared for the same checkpoint (`python -m data_prep split` makes two folders of one); None: no looks."""
    every: int = Field(default=500, gt=0)
    """Steps between looks; the last step is always followed by one."""
    rows: int = Field(default=256, gt=0)
    """Pairs, and conversations, looked at: at most that many of each, evenly spaced over the folder, the same ones every time."""

    @model_validator(mode="after")
    def _rows_to_look_at(self) -> "EvaluateSettings":
        if self.shards is None and (self.every, self.rows) != (500, 256):
            raise ValueError("evaluate.every or evaluate.rows is set, but there is nothing to evaluate on: name evaluate.shards")
        return self


WATCHING = {"out", "ranks", "stop_after", "log_every", "max_refused", "track", "evaluate", "timeout_minutes"}
WATCHING |= {"save_every", "save_in_background", "keep", "keep_best", "keep_best_is"}
"""Fields of a run that its result does not depend on. (Which data it was is recorded as the shards' digest, not as their path.)"""


class RunConfig(Settings):
    """One training run."""

    out: Path = Path("work/run")
    """Folder of the run: resolved config, metrics, checkpoints, export."""
    steps: int = Field(default=2000, gt=0)
    """Optimizer steps."""
    stop_after: int | None = Field(default=None, gt=0)
    """End this job after that many steps of the run, with a checkpoint to --resume from; the schedule still spans all steps."""
    seed: int = Field(default=0, ge=0)
    """Selects data order, the draws of z and of the elastic chorus, the adapters' initial weights and dropout masks."""
    save_every: int = Field(default=500, gt=0)
    """Steps between checkpoints; the last step is always saved."""
    save_in_background: bool = True
    """Flush a checkpoint to disk and commit it while the next steps run; the same files either way. False: the step waits for it."""
    keep: int = Field(default=2, gt=0)
    """Newest checkpoints kept."""
    keep_best: str | None = None
    """Also keep the checkpoint at which this recorded metric, e.g. loss/total, was best, as a mean over the steps since the one before."""
    keep_best_is: Literal["lower", "higher"] = "lower"
    """Which values of keep_best are better."""
    log_every: int = Field(default=10, gt=0)
    """Steps between progress lines; metrics are recorded for every step."""
    max_refused: int = Field(default=10, ge=0)
    """Refused steps (non-finite loss or gradient) in a row that end the run."""
    deepspeed: Path = Path("ds_configs/zero3.json")
    """DeepSpeed configuration: sharding and precision only."""
    ranks: int | None = Field(default=None, gt=0)
    """How many ranks there must be; None takes as many as were started. DeepSpeed trains on one node where its --hostfile is missing."""
    timeout_minutes: float = Field(default=30.0, gt=0)
    """How long a collective may wait for a slow rank."""
    model: ModelSettings = ModelSettings()
    """Which model."""
    data: DataSettings = DataSettings()
    """Which data."""
    batch: BatchSettings = BatchSettings()
    """What a step sees."""
    chorus: ChorusSettings = ChorusSettings()
    """How many chorus tokens a step uses."""
    loss: LossSettings = LossSettings()
    """The objective."""
    optim: OptimSettings = OptimSettings()
    """The optimizer."""
    ema: EmaSettings = EmaSettings()
    """An average of the weights."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Evaluation during training."""
    track: TrackSettings = TrackSettings()
    """MLflow."""

    @model_validator(mode="after")
    def _learnt_what_has_a_rate(self) -> "RunConfig":
        rate = self.optim.rates.temperature
        if rate is not None and not self.loss.learn_temperature:
            raise ValueError(
                f"optim.rates.temperature = {rate}, but the temperature is fixed: "
                "switch loss.learn_temperature on, or leave optim.rates.temperature out"
            )
        return self

    def content(self) -> dict:
        """What the result depends on, JSON-ready: everything but where it is written, how often, and how it is watched."""
        absent = set() if self.ema.decay else {"ema"}  # runs without an average are those of before there was one
        return self.model_dump(mode="json", exclude=WATCHING | absent)

    @property
    def last_step(self) -> int:
        """Steps done when this job ends."""
        return min(self.steps, self.stop_after or self.steps)
