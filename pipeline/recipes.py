"""Named runs, as functions. A recipe is a starting point: any field can be overridden on the command line.

Several runs compared (the paper's ablation, the elastic chorus) are a study, made of a recipe and arms: `pipeline.study.arms`.
"""

from collections.abc import Callable
from pathlib import Path

from pipeline.config import BatchSettings, DataSettings, LossSettings, ModelSettings, OptimSettings, RateSettings, RunConfig


def tiny() -> RunConfig:
    """The quickstart: the embedded 2 M-parameter Qwen2-VL on the embedded scenes, two CPU ranks, a few minutes."""
    return RunConfig(
        steps=500,
        save_every=250,
        # several sources in every step: from random weights, batches of one source learn nothing for a long time
        batch=BatchSettings(pairs=30, conversations=24, sub_batch=10, row_tokens=256, chunk_tokens=16384),
        loss=LossSettings(symmetric=True, temperature=0.07),
        # from random weights, rates of 1e-3 and more can leave retrieval at chance, and answers build on what retrieval teaches it to see;
        # the embedding alone bears more, and at the others' rate the first hundred steps only teach it which words are frequent
        optim=OptimSettings(
            learning_rate=7e-4, rates=RateSettings(embedding=3.5e-3), warmup_share=0.06, weight_decay=0.02, final_share=0.05
        ),
    )


def crem_2b() -> RunConfig:
    """CREM on Qwen2-VL-2B as in the paper where it speaks, and as the field does where it is silent (see README)."""
    return RunConfig(
        out=Path("work/crem-2b"),
        steps=2000,
        deepspeed=Path("ds_configs/zero3_bf16.json"),
        model=ModelSettings(checkpoint="work/Qwen2-VL-2B-crem-init", gradient_checkpointing=True),
        data=DataSettings(shards=Path("work/shards-qwen2vl"), mix_exponent=0.0),
        batch=BatchSettings(pairs=1024, conversations=256, sub_batch=64, row_tokens=4096, chunk_tokens=16384),
        optim=OptimSettings(learning_rate=1e-5, warmup_share=0.05, schedule="linear"),
    )


def crem_2b_lora() -> RunConfig:
    """CREM on Qwen2-VL-2B with adapters, at the rate the field takes for them (VLM2Vec-V2: rank 16, 5e-5)."""
    base = crem_2b()
    return base.model_copy(
        update={
            "out": Path("work/crem-2b-lora"),
            "model": base.model.model_copy(update={"train": "lora"}),
            "optim": base.optim.model_copy(update={"learning_rate": 5e-5}),
        }
    )


def crem_7b() -> RunConfig:
    """CREM on Qwen2-VL-7B: as 2B, with a smaller chunk per forward."""
    base = crem_2b()
    return base.model_copy(
        update={
            "out": Path("work/crem-7b"),
            "model": ModelSettings(checkpoint="work/Qwen2-VL-7B-crem-init", gradient_checkpointing=True),
            "batch": base.batch.model_copy(update={"chunk_tokens": 8192}),
        }
    )


def crem_qwen3vl_2b() -> RunConfig:
    """CREM on Qwen3-VL-2B-Instruct: as on Qwen2-VL-2B. The paper has no such run.

    Its shards are its own (prepare with --max-pixels 1310720: 1,280 visual tokens of 32 x 32 pixels).
    """
    base = crem_2b()
    return base.model_copy(
        update={
            "out": Path("work/crem-qwen3vl-2b"),
            "model": ModelSettings(checkpoint="work/Qwen3-VL-2B-crem-init", gradient_checkpointing=True),
            "data": base.data.model_copy(update={"shards": Path("work/shards-qwen3vl")}),
        }
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tiny": tiny,
    "crem_2b": crem_2b,
    "crem_7b": crem_7b,
    "crem_2b_lora": crem_2b_lora,
    "crem_qwen3vl_2b": crem_qwen3vl_2b,
}
