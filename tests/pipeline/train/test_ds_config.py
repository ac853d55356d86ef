"""The DeepSpeed JSON: every shipped file is accepted by us and by DeepSpeed; a slip in it is refused with its place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.samples import DataError
from pipeline.train.ds_config import check_ranks, load_deepspeed_config, read_sharding
from pipeline.train.sharding import STAGES, Aio, Bf16, Offload, OffloadParam, Zero

ROOT = Path(__file__).resolve().parents[3]
FILES = {
    "zero1": (1, False),
    "zero2": (2, False),
    "zero3": (3, False),
    "zero1_bf16": (1, True),
    "zero2_bf16": (2, True),
    "zero3_bf16": (3, True),
    "zero3_bf16_multinode": (3, True),
    "zero3_bf16_cpu_offload": (3, True),
    "zero3_bf16_nvme_offload": (3, True),
}
"""Name -> stage, bf16."""


def file(name: str) -> Path:
    return ROOT / f"ds_configs/{name}.json"


def test_the_table_is_complete():
    assert {path.stem for path in (ROOT / "ds_configs").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_is_accepted_by_deepspeed_as_it_is_meant(name):
    """DeepSpeed's own classes take every key, and read the values that we wrote."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = load_deepspeed_config(file(name), clip=0.5)
    theirs = DeepSpeedZeroConfig(**config["zero_optimization"])
    for key, value in config["zero_optimization"].items():
        if not key.startswith("offload_"):
            assert getattr(theirs, key.removeprefix("stage3_") if hasattr(theirs, key.removeprefix("stage3_")) else key) == value
    assert DeepSpeedBF16Config(**config["bf16"]).enabled == FILES[name][1]
    assert (int(theirs.stage), config["gradient_clipping"]) == (FILES[name][0], 0.5)
    assert config["data_types"] == {"grad_accum_dtype": "fp32"} and config["communication_data_type"] == "fp32"


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_states_every_key_that_its_stage_reads(name):
    stage, _ = FILES[name]
    written = json.loads(file(name).read_text())["zero_optimization"]
    optional = {"offload_optimizer", "offload_param", "zero_hpz_partition_size"}
    read = {key for key in Zero.model_fields if stage in STAGES.get(key, (0, 1, 2, 3))}
    assert read - optional <= set(written) <= read


def test_what_the_special_files_are_for():
    multinode, cpu, nvme = (
        read_sharding(file(f"zero3_bf16_{name}")).zero_optimization for name in ("multinode", "cpu_offload", "nvme_offload")
    )
    assert (multinode.zero_hpz_partition_size, multinode.offload_param) == (8, None)
    assert (cpu.offload_optimizer.device, cpu.offload_param.device) == ("cpu", "cpu")
    assert (nvme.offload_optimizer.device, nvme.offload_param.device, nvme.offload_param.nvme_path) == ("nvme", "nvme", "/local_nvme")
    assert nvme.offload_param.buffer_size >= 152_064 * 3_584  # the embedding of Qwen2-VL-7B: DeepSpeed swaps a parameter as one


def test_our_keys_are_deepspeeds():
    """A key that DeepSpeed does not know would be our own invention."""
    from deepspeed.runtime.swap_tensor.aio_config import AIO_DEFAULT_DICT
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadParamConfig

    theirs = set(DeepSpeedZeroConfig.model_fields) | {field.alias for field in DeepSpeedZeroConfig.model_fields.values()}
    assert set(Zero.model_fields) <= theirs
    assert set(OffloadParam.model_fields) <= set(DeepSpeedZeroOffloadParamConfig.model_fields)
    assert set(Aio.model_fields) <= set(AIO_DEFAULT_DICT)
    assert set(Bf16.model_fields) == {"enabled", "check_grad_overflow"} and "device" in Offload.model_fields


ZERO3 = {"zero_optimization": {"stage": 3}}
NVME = {"device": "nvme", "nvme_path": "/disk"}
REFUSED = [
    ({"zero_optimisation": {}} | ZERO3, "found the unknown key zero_optimisation; did you mean zero_optimization?"),
    (
        {"zero_optimization": {"stage": 3, "overlap_com": True}},
        "found the unknown key zero_optimization.overlap_com; did you mean overlap_comm?",
    ),
    (
        {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu", "pin_memoy": True}}},
        "found the unknown key zero_optimization.offload_param.pin_memoy; did you mean pin_memory?",
    ),
    (ZERO3 | {"bf16": {"enabled": True, "loss_scale": 0}}, "unknown key bf16.loss_scale; expected one of check_grad_overflow, enabled"),
    (ZERO3 | {"fp16": {"enabled": True}}, "found the unknown key fp16; did you mean bf16?"),
    (ZERO3 | {"gradient_clipping": 1.0}, "found gradient_clipping, which the run config owns; remove it here and set --optim.clip"),
    (ZERO3 | {"train_batch_size": 8}, "set --batch.pairs"),
    (ZERO3 | {"optimizer": {"type": "Adam"}}, "set --optim"),
    ({}, "found no zero_optimization; expected it"),
    ({"zero_optimization": {"stage": "3"}}, "found zero_optimization.stage = '3'; input should be 0, 1, 2 or 3"),
    ({"zero_optimization": {"stage": 4}}, "found zero_optimization.stage = 4; input should be 0, 1, 2 or 3"),
    (
        {"zero_optimization": {"stage": 3, "reduce_bucket_size": 0}},
        "zero_optimization.reduce_bucket_size = 0; input should be greater than 0",
    ),
    ({"zero_optimization": {"stage": 3, "overlap_comm": 1}}, "zero_optimization.overlap_comm = 1; input should be a valid boolean"),
    (
        {"zero_optimization": {"stage": 2, "stage3_max_live_parameters": 1}},
        "stage3_max_live_parameters is read by stage 3, but stage = 2: remove it, or change stage",
    ),
    ({"zero_optimization": {"stage": 3, "round_robin_gradients": True}}, "round_robin_gradients is read by stage 1 and 2, but stage = 3"),
    ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, "offload_param is read by stage 3, but stage = 2"),
    ({"zero_optimization": {"stage": 2, "offload_optimizer": NVME}, "aio": {}}, "offloading to nvme needs stage 3, but stage = 2"),
    ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, "device = nvme with nvme_path = None; expected nvme_path"),
    ({"zero_optimization": {"stage": 3, "offload_param": NVME}}, "aio goes with device nvme: state both, or neither"),
    (ZERO3 | {"aio": {}}, "aio goes with device nvme: state both, or neither"),
    (
        {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "zero_hpz_partition_size": 8}},
        "zero_hpz_partition_size keeps weights on the GPU and offload_param takes them away: remove one of them",
    ),
    ({"zero_optimization": {"stage": 0}, "bf16": {"enabled": True}}, "stage 0 with bf16 would add up gradients in bfloat16: take stage 1"),
    ([], "found list; expected a JSON object with zero_optimization"),
]


@pytest.mark.parametrize(("written", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_a_slip_is_refused_with_its_place(tmp_path, written, message):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(written))
    with pytest.raises(DataError) as error:
        load_deepspeed_config(path, 1.0)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(DataError, match=r"found no such DeepSpeed config; expected a JSON file, e\.g\. ds_configs/zero3\.json"):
        read_sharding(tmp_path / "none.json")
    (tmp_path / "ds.json").write_text("{")
    with pytest.raises(DataError, match="found invalid JSON"):
        read_sharding(tmp_path / "ds.json")


def test_hierarchical_partitioning_wants_whole_nodes():
    config = load_deepspeed_config(file("zero3_bf16_multinode"), 1.0)
    check_ranks(config, 16)
    check_ranks(load_deepspeed_config(file("zero1"), 1.0), 3)
    with pytest.raises(
        DataError, match=r"zero_hpz_partition_size = 8, found 12 ranks; expected a multiple of 8: set it to the GPUs of one"
    ):
        check_ranks(config, 12)


def test_a_wrong_file_costs_no_import_of_deepspeed():
    code = "import sys, pipeline.train.ds_config; print({'torch', 'deepspeed', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
