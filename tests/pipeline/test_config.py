"""The configuration refuses whatever makes no sense, and says which field to change."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.config import WATCHING, RateSettings, RunConfig
from pipeline.recipes import RECIPES
from pipeline.train.cli import parse

NAN, INF = math.nan, math.inf


def paths(kind: type[BaseModel] = RunConfig, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every field, groups included."""
    out = []
    for name, field in kind.model_fields.items():
        out.append((*before, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            out += paths(field.annotation, (*before, name))
    return out


def nested(path: tuple[str, ...], value: object) -> dict:
    """{"optim": {"clip": 1}} from ("optim", "clip"), 1."""
    for name in reversed(path):
        value = {name: value}
    return value


def misspelt(name: str) -> list[str]:
    """One edit away: a letter lost, doubled, replaced or swapped, an underscore lost, a capital."""
    edits = {name[:i] + name[i + 1 :] for i in range(len(name))}
    edits |= {name[:i] + name[i] + name[i:] for i in range(len(name))}
    edits |= {name[:i] + "x" + name[i + 1 :] for i in range(len(name))}
    edits |= {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)}
    edits |= {name.capitalize(), name + "s"}
    return sorted(edits - {name})


def at(config: RunConfig, path: tuple[str, ...]) -> object:
    value: object = config
    for name in path:
        value = getattr(value, name)
    return value


VALID = {
    "out": "elsewhere",
    "steps": 7,
    "stop_after": 3,
    "seed": 5,
    "save_every": 11,
    "keep": 4,
    "keep_best": "loss/total",
    "keep_best_is": "higher",
    "log_every": 3,
    "max_refused": 0,
    "deepspeed": "ds_configs/zero3_bf16.json",
    "ranks": 16,
    "timeout_minutes": 2.5,
    "model.checkpoint": "some/folder",
    "model.kernels": "liger",
    "model.train": "lora",
    "data.shards": "some/shards",
    "data.mix_exponent": 0.5,
    "batch.pairs": 320,
    "batch.conversations": 0,
    "batch.sub_batch": 2,
    "batch.row_tokens": 128,
    "batch.chunk_tokens": 4096,
    "loss.retrieval_weight": 0.0,
    "loss.generation_weight": 2.0,
    "loss.temperature": 0.1,
    "loss.margin": -0.05,
    "loss.compression_probability": 1.0,
    "optim.learning_rate": 0.5,
    "optim.warmup_share": 0.0,
    "optim.schedule": "linear",
    "optim.final_share": 1.0,
    "optim.weight_decay": 0.0,
    "optim.beta1": 0.0,
    "optim.beta2": 0.5,
    "optim.clip": 3.0,
    "ema.decay": 0.999,
}
"""A value beside its default for every field with a plain value."""

INVALID = [
    *[(name, value) for name in ("steps", "stop_after", "ranks", "save_every", "keep", "log_every") for value in (0, -1, 1.5, "many", NAN)],
    *[(name, value) for name in ("batch.pairs", "batch.sub_batch", "batch.row_tokens", "batch.chunk_tokens") for value in (0, -64, 0.5)],
    *[(name, value) for name in ("seed", "max_refused", "batch.conversations") for value in (-1, 0.5, None)],
    *[(name, value) for name in ("loss.temperature", "optim.learning_rate", "optim.clip") for value in (0, -1, NAN, INF)],
    *[("timeout_minutes", value) for value in (0, -1, NAN, INF)],
    *[(name, value) for name in ("loss.retrieval_weight", "loss.generation_weight", "optim.weight_decay") for value in (-0.1, NAN, INF)],
    *[(name, value) for name in ("loss.compression_probability", "optim.final_share") for value in (-0.1, 1.1, NAN, "half")],
    *[(name, value) for name in ("optim.beta1", "optim.beta2", "optim.warmup_share") for value in (-0.1, 1.0, NAN)],
    *[("chorus.elastic", value) for value in ((0,), (1, -2), (1, 1, 2), (4, 2), (1.5,), ("all",), 4)],
    *[("data.mix_exponent", value) for value in (-1, NAN, INF, "all")],
    *[("data.weights", value) for value in ({"a": -1}, {"a": NAN}, {"a": INF}, {"a": "much"}, {1: 1}, [1], "a")],
    *[("data.caps", value) for value in ({"a": 0}, {"a": -1}, {"a": 1.5}, {"a": NAN}, {"a": "few"}, [1], "a")],
    *[("data.epochs", value) for value in ({"a": 0}, {"a": -1}, {"a": NAN}, {"a": INF}, {"a": "once"}, [1], "a")],
    *[("loss.margin", value) for value in (-2.1, 2.1, NAN, INF, "some")],
    *[(f"evaluate.{name}", value) for name in ("every", "rows") for value in (0, -1, 1.5, "many")],
    *[("ema.decay", value) for value in (0, 1, -0.1, 1.5, NAN, INF, "slow")],
    *[("ema.update_after_step", value) for value in (-1, 0.5, None, "late")],
    ("data.verify", "perhaps"),
    ("save_in_background", "perhaps"),
    ("keep_best_is", "larger"),
    ("loss.symmetric", 2),
    ("loss.learn_temperature", 2),
    *[(f"optim.rates.{part}", value) for part in RateSettings.model_fields for value in (0, -1e-3, NAN, INF, "fast")],
    ("model.attention", "flash"),
    ("model.attention", "eager"),
    ("model.kernels", "flash"),
    ("model.train", "adapters"),
    ("model.freeze_vision", 2),
    *[("model.lora.rank", value) for value in (0, -4, 1.5)],
    *[("model.lora.alpha", value) for value in (0, -1, NAN, INF)],
    *[("model.lora.dropout", value) for value in (-0.1, 1.0, NAN)],
    ("model.checkpoint", None),
    ("optim.schedule", "step"),
    ("out", 3),
    ("model", "qwen"),
    ("track", None),
]


def test_defaults_and_recipes_are_valid() -> None:
    assert RunConfig().steps == 2000
    for make in RECIPES.values():
        config = make()
        assert RunConfig.model_validate(config.model_dump()) == config
        assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_the_papers_values() -> None:
    """CREM: a_r = 1, a_g = 0.5, p = 0.5."""
    for config in (RunConfig(), RECIPES["crem_2b"](), RECIPES["crem_7b"](), RECIPES["crem_qwen3vl_2b"]()):
        assert (config.loss.retrieval_weight, config.loss.generation_weight, config.loss.compression_probability) == (1.0, 0.5, 0.5)


@pytest.mark.parametrize("path", paths(), ids=".".join)
def test_a_misspelt_key_is_refused(path: tuple[str, ...]) -> None:
    *group, name = path
    for wrong in misspelt(name):
        with pytest.raises(ValidationError, match=wrong):
            RunConfig.model_validate(nested((*group, wrong), 1))


@pytest.mark.parametrize("path", [path for path in paths() if path not in {(p[0],) for p in paths() if len(p) > 1}], ids=".".join)
def test_a_misspelt_option_is_refused(path: tuple[str, ...], capsys) -> None:
    *group, name = path
    for wrong in misspelt(name)[:: max(1, len(name) // 2)]:
        option = "--" + ".".join((*group, wrong))
        with pytest.raises(SystemExit) as stop:
            parse([option, "1"])
        assert stop.value.code == 2
        assert option in "".join(capsys.readouterr())


def test_every_plain_field_is_in_the_table() -> None:
    special = {"save_in_background", "data.weights", "data.caps", "data.epochs", "data.verify"}
    special |= {"loss.symmetric", "loss.learn_temperature", "chorus.elastic"}
    special |= {f"optim.rates.{part}" for part in RateSettings.model_fields}
    special |= {"model.attention", "model.gradient_checkpointing", "model.freeze_vision"}
    special |= {"model.lora.rank", "model.lora.alpha", "model.lora.dropout"}
    special |= {"evaluate", "evaluate.shards", "evaluate.every", "evaluate.rows"}
    special |= {"ema", "ema.update_after_step"}
    names = {".".join(path) for path in paths() if path[0] != "track"}
    assert names - special - {"model", "model.lora", "data", "batch", "chorus", "loss", "optim", "optim.rates"} == set(VALID)


@pytest.mark.parametrize(("name", "value"), VALID.items(), ids=list(VALID))
def test_a_valid_value_arrives(name: str, value: object) -> None:
    """The control: both ways in take every field."""
    path = tuple(name.split("."))
    base = RECIPES["tiny"]()
    config = parse(["tiny", f"--{name}", str(value)]).config
    assert at(base, path) != at(config, path)
    assert at(config, path) == (Path(value) if isinstance(at(base, path), Path) else value)
    assert at(RunConfig.model_validate(nested(path, value)), path) == at(config, path)


def test_chorus_sizes_arrive() -> None:
    assert RECIPES["tiny"]().chorus.elastic == ()
    assert parse(["tiny", "--chorus.elastic", "1", "2", "4"]).config.chorus.elastic == (1, 2, 4)


@pytest.mark.parametrize(("name", "value"), INVALID, ids=str)
def test_an_impossible_value_is_refused(name: str, value: object) -> None:
    path = tuple(name.split("."))
    with pytest.raises(ValidationError) as error:
        RunConfig.model_validate(nested(path, value))
    assert all(problem["loc"][: len(path)] == path for problem in error.value.errors())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (dict(pairs=100, sub_batch=64), r"batch.pairs = 100 is not a multiple of batch.sub_batch = 64.*change one of them"),
        (dict(row_tokens=4096, chunk_tokens=4095), r"batch.chunk_tokens = 4095 is less than batch.row_tokens = 4096: raise it"),
    ],
)
def test_rules_between_fields_name_them(batch: dict, message: str, capsys) -> None:
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate({"batch": batch})
    words = [word for name, value in batch.items() for word in (f"--batch.{name}", str(value))]
    with pytest.raises(SystemExit) as stop:
        parse(words)
    assert stop.value.code == 2
    shown = "".join(capsys.readouterr())
    assert all(f"batch.{name}" in shown for name in batch)


def test_adapters_are_set_where_they_train() -> None:
    words = ["--model.lora.rank", "4", "--model.lora.alpha", "6", "--model.lora.dropout", "0.25"]
    model = parse(["tiny", "--model.train", "lora", *words]).config.model
    assert (model.train, model.lora.rank, model.lora.alpha, model.lora.dropout) == ("lora", 4, 6.0, 0.25)
    default = parse(["tiny", "--model.train", "lora"]).config.model
    assert (default.lora.rank, default.lora.alpha, default.lora.dropout, default.freeze_vision) == (16, 32.0, 0.0, False)
    with pytest.raises(ValidationError, match=r"model.train = full has no adapters: set model.train to lora, or leave model.lora out"):
        RunConfig.model_validate({"model": {"lora": {"rank": 4}}})
    with pytest.raises(SystemExit) as stop:
        parse(["tiny", *words])
    assert stop.value.code == 2


def test_evaluation_settings_need_rows_to_look_at() -> None:
    evaluate = parse(["tiny", "--evaluate.shards", "held/out", "--evaluate.every", "50", "--evaluate.rows", "64"]).config.evaluate
    assert (evaluate.shards, evaluate.every, evaluate.rows) == (Path("held/out"), 50, 64)
    for settings in ({"every": 50}, {"rows": 64}):
        with pytest.raises(ValidationError, match=r"evaluate.every or evaluate.rows is set.*name evaluate.shards"):
            RunConfig.model_validate({"evaluate": settings})


def test_an_average_starts_where_there_is_one() -> None:
    ema = parse(["tiny", "--ema.decay", "0.99", "--ema.update-after-step", "100"]).config.ema
    assert (ema.decay, ema.update_after_step) == (0.99, 100)
    with pytest.raises(ValidationError, match=r"ema.update_after_step = 100, but there is no average: set ema.decay, or leave it out"):
        RunConfig.model_validate({"ema": {"update_after_step": 100}})


def test_a_rate_of_the_temperature_needs_one_that_is_learnt() -> None:
    rate = {"optim": {"rates": {"temperature": 1e-3}}}
    assert RunConfig.model_validate({"loss": {"learn_temperature": True}} | rate).optim.rates.temperature == 1e-3
    with pytest.raises(ValueError, match=r"optim.rates.temperature = 0.001, but the temperature is fixed: switch loss.learn_temp"):
        RunConfig.model_validate(rate)


def test_rates_arrive_by_option() -> None:
    words = ["--optim.rates.embedding", "2e-3", "--optim.rates.vision", "1e-4"]
    words += ["--loss.learn-temperature", "--optim.rates.temperature", "0.01"]
    rates = parse(["crem_2b", *words]).config.optim.rates
    assert rates == RateSettings(embedding=2e-3, vision=1e-4, temperature=0.01)


def test_a_learnt_temperature_starts_in_its_range(capsys) -> None:
    """It is held at 0.01 or above; a fixed one may be lower."""
    assert parse(["--loss.temperature", "0.01", "--loss.learn-temperature"]).config.loss.learn_temperature
    assert parse(["--loss.temperature", "0.005"]).config.loss.temperature == 0.005
    with pytest.raises(SystemExit) as stop:
        parse(["--loss.temperature", "0.005", "--loss.learn-temperature"])
    assert stop.value.code == 2
    shown = " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert "loss.temperature = 0.005" in shown and "held at 0.01 or above" in shown


def test_is_frozen() -> None:
    config = RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.clip = 3.0


def test_content_is_what_the_result_depends_on() -> None:
    base = RECIPES["tiny"]().content()
    assert set(base) == {"steps", "seed", "deepspeed", "model", "data", "batch", "chorus", "loss", "optim"}
    watching = {"out": "elsewhere", "stop_after": 3, "save_every": 7, "keep": 9, "log_every": 2, "max_refused": 1, "timeout_minutes": 9.0}
    watching |= {"ranks": 2, "keep_best": "loss/total", "keep_best_is": "higher"}
    assert set(watching) | {"save_in_background", "track", "evaluate"} == WATCHING
    words = [word for name, value in watching.items() for word in (f"--{name}", str(value))]
    assert parse([*words, "--no-save-in-background"]).config.content() == base
    assert parse(["--seed", "1"]).config.content() != base
    assert parse(["--ema.decay", "0.9"]).config.content() == base | {"ema": {"decay": 0.9, "update_after_step": 0}}


def test_last_step() -> None:
    assert RunConfig(steps=10).last_step == 10
    assert RunConfig(steps=10, stop_after=4).last_step == 4
    assert RunConfig(steps=10, stop_after=40).last_step == 10


def test_imports_nothing_heavy() -> None:
    """A wrong value costs a second, not the import of torch."""
    code = (
        "import sys, pipeline.config, pipeline.recipes, pipeline.train.cli\n"
        "print(*sorted({'torch', 'transformers', 'deepspeed', 'mlflow', 'ray', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_something_must_be_trained() -> None:
    with pytest.raises(ValueError, match="nothing would be trained"):
        RunConfig.model_validate({"loss": {"retrieval_weight": 0, "generation_weight": 0}})
