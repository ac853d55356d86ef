"""From the words of a launch to the command that is run: the trainer's words checked, ranks counted, the job named.

deepspeed --hostfile hosts launchers/train.sh crem_2b --data.shards ...
\\_____ the launcher's words ______/ \\________ the trainer's words ________/
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from data_prep.samples import DataError
from pipeline.config import RunConfig
from pipeline.supervise import hostfile
from pipeline.train.cli import parse

SCRIPT = "train.sh"


class _Quiet(argparse.ArgumentParser):
    """Leaves what is wrong with a launcher's words to the launcher, which knows all of them."""

    def error(self, message: str):
        raise DataError(f"the launcher's options: {message}; nothing was started")


@dataclass(frozen=True)
class Launch:
    """A launch that has been checked."""

    launcher: tuple[str, ...]
    """The launcher's words, the script's path last."""
    trainer: tuple[str, ...]
    """The trainer's words, with --ranks."""
    config: RunConfig
    several_machines: bool
    """Whether this launcher starts ranks on other machines."""
    one_of_several: bool
    """Whether it starts this machine's ranks only, and others like it start the rest."""

    def command(self, job: Path, resume: bool) -> list[str]:
        """The command line of a start.

        Args:
            job: the folder through which ranks and supervisor talk.
            resume: go on from the newest whole checkpoint, if there is one (--resume auto), unless the words say how.
        """
        words = [*self.trainer, "--resume", "auto"] if resume and "--resume" not in self.trainer else list(self.trainer)
        return [*self.launcher, *words, f"--job={job}"]


def check(words: list[str]) -> Launch:
    """Split and check the words of a launch.

    Raises:
        DataError: no script among them, a hostfile that cannot be, or a number of ranks that disagrees with it.
        SystemExit: the trainer's own words make no sense (status 2), or --help was asked for.
    """
    at = next((i for i, word in enumerate(words) if Path(word).name == SCRIPT), None)
    if not at:
        raise DataError(
            f"found {' '.join(words) or 'no command'!r}, expected a launcher and its script, such as "
            "deepspeed --hostfile hosts launchers/train.sh RECIPE ...; nothing was started"
        )
    launcher, trainer = words[: at + 1], words[at + 1 :]
    config = parse(trainer).config
    options = _options(launcher[1:-1])
    hosts = hostfile.read(Path(options.hostfile)) if options.hostfile else {}
    ranks = _ranks(options, hosts)
    if ranks and config.ranks and ranks != config.ranks:
        raise DataError(
            f"found --ranks {config.ranks}, but the launcher's options make {ranks} ranks{_told(hosts)}; nothing was started. "
            "Change one of them, or leave --ranks out"
        )
    if hosts and not ranks and not config.ranks:
        raise DataError("found --include or --exclude, expected --ranks beside it: how many ranks it leaves; nothing was started")
    if ranks and not config.ranks:
        trainer = [*trainer, "--ranks", str(ranks)]
    several = (len(hosts) > 1 and not options.no_ssh and options.num_nodes != 1) or bool(hosts and options.force_multi)
    part = options.no_ssh or (options.nnodes or "1") != "1"
    return Launch(tuple(launcher), tuple(trainer), config, several, part)


def _options(words: list[str]) -> argparse.Namespace:
    """The few options of `deepspeed` and `torchrun` that say how many ranks there will be; others are the launcher's business."""
    parser = _Quiet(add_help=False, allow_abbrev=False)
    parser.add_argument("-H", "--hostfile")
    parser.add_argument("-i", "--include")
    parser.add_argument("-e", "--exclude")
    parser.add_argument("--num_nodes", type=int, default=-1)
    parser.add_argument("--num_gpus", "--num_accelerators", type=int, default=-1)
    parser.add_argument("--no_ssh", action="store_true")
    parser.add_argument("--force_multi", action="store_true")
    parser.add_argument("--nnodes")
    parser.add_argument("--nproc-per-node", "--nproc_per_node")
    return parser.parse_known_args(words)[0]


def _ranks(options: argparse.Namespace, hosts: dict[str, int]) -> int | None:
    """Ranks that the launcher will start, over all machines; None where its options do not tell."""
    if options.include or options.exclude:
        return None
    if hosts:
        if options.num_nodes > len(hosts):
            found = f"found --num_nodes {options.num_nodes}, but the hostfile names {len(hosts)}{_told(hosts)}"
            raise DataError(f"{found}; nothing was started")
        if few := [f"{host} slots={slots}" for host, slots in hosts.items() if slots < options.num_gpus]:
            raise DataError(f"found --num_gpus {options.num_gpus}, but the hostfile has {', '.join(few)}; nothing was started")
        used = list(hosts.values())[: options.num_nodes if options.num_nodes > 0 else None]
        return len(used) * options.num_gpus if options.num_gpus > 0 else sum(used)
    if options.num_gpus > 0:
        return options.num_gpus
    if re.fullmatch(r"\d+", options.nproc_per_node or "") and re.fullmatch(r"\d+", options.nnodes or "1"):
        return int(options.nproc_per_node) * int(options.nnodes or "1")
    return None


def _told(hosts: dict[str, int]) -> str:
    return f" ({', '.join(f'{host} slots={slots}' for host, slots in hosts.items())})" if hosts else ""
