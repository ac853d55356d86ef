"""`python -m pipeline.plan RECIPE --nodes 1 --gpus 8 [--gpu-memory 80] [--flops 400e12] [any option of training]`."""

import argparse
import sys

from data_prep.command import exit_status
from data_prep.encode import Encoder
from data_prep.shards import MANIFEST
from pipeline.config import RunConfig
from pipeline.plan.report import Machine, Plan, problems, text
from pipeline.plan.sizes import Model, open_model
from pipeline.plan.work import Assumed, Work, assume, from_shards
from pipeline.train.averaging import check_ema
from pipeline.train.cli import parse
from pipeline.train.ds_config import read_sharding


def main(argv: list[str]) -> int:
    """Print the plan; 0: it fits, 1: it does not, 2: bad input."""
    own, words = _options().parse_known_args(argv)
    return exit_status(_plan, own, parse(words).config)


def _plan(own: argparse.Namespace, config: RunConfig) -> int:
    machine = Machine(own.nodes, own.gpus, own.gpu_memory, own.flops, own.utilisation)
    sharding = read_sharding(config.deepspeed)
    check_ema(config.ema, sharding.model_dump(mode="json")["zero_optimization"])
    model = open_model(config.model, config.loss.learn_temperature)
    assumed = Assumed(own.image_tokens, own.images_per_pair, own.text_tokens, own.conversation_tokens, own.answer_tokens, own.rows)
    plan = Plan(config, model, _work(config, model, assumed), sharding, machine)
    print(text(plan))
    return 0 if plan.fits() and not problems(plan) else 1


def _work(config: RunConfig, model: Model, assumed: Assumed) -> Work:
    if not (config.data.shards / MANIFEST).is_file():
        return assume(config, model, assumed)
    return from_shards(config, Encoder(config.model.checkpoint).image_id)


def _options() -> argparse.ArgumentParser:
    """The plan's own options; all others are training's."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan", description=__doc__, allow_abbrev=False, add_help=True)
    parser.add_argument("--nodes", type=_positive(int), default=1, help="machines")
    parser.add_argument("--gpus", type=_positive(int), default=8, help="GPUs of a machine")
    parser.add_argument("--gpu-memory", type=_positive(float), default=80.0, help="GiB of a GPU")
    parser.add_argument("--flops", type=_positive(float), default=400e12, help="peak operations a second of a GPU (an assumption)")
    parser.add_argument("--utilisation", type=_positive(float), default=0.35, help="share of the peak that is reached (an assumption)")
    for name, value in vars(Assumed()).items():
        kind = _positive(type(value))
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value, help="assumed of the data where no shards exist")
    return parser


def _positive(kind: type):
    """A parser of numbers above zero."""

    def read(word: str):
        value = kind(float(word)) if kind is int else kind(word)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"found {word}; expected a number above zero")
        return value

    return read


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
