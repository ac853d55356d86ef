"""Figures of all rounds to lines of text; ratios are taken within a round, so a slow round does not meet a fast one.

A run is {"first": seconds, "rate": tokens a second, "bytes": of the kept cache, "same": share of tokens, "others": cores}.
"""

import statistics
from collections.abc import Iterable

from tests.benchmarks.compression.ways import COMPRESSED, HUGGING_FACE, NATIVE, STORED
from tests.benchmarks.throughput.others import CONTENDED

Runs = dict[str, dict[str, float]]
"""A round: by way."""

SOONER = 10
"""How many times sooner the first token is to come from a stored cache than from the picture."""
NOISE = 0.03
"""Decoding this much slower still counts as not slower: short prefixes make no difference, and two timings of the same thing differ."""


def ratio(rounds: list[Runs], way: str, base: str, key: str) -> float:
    """Median over rounds of one way's figure over another's in the same round."""
    return statistics.median(runs[way][key] / runs[base][key] for runs in rounds)


def main_table(batches: dict[int, list[Runs]]) -> list[str]:
    """A row for each way and batch size: {batch: rounds}."""
    head = f"{'way':23}{'batch':>5}{'first token ms':>16}{'(low - high)':>22}{'sooner than native':>20}{'tokens/s':>10}{'(low - high)':>20}"
    out = [head + f"{'x HF':>8}{'x native':>10}{'cache KiB/prompt':>18}{'same tokens':>13}{'others':>8}"]
    for batch, rounds in batches.items():
        for way in rounds[0]:
            runs = [found[way] for found in rounds]
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            first = f"{1000 * middle['first']:16.1f}{_span(1000 * run['first'] for run in runs):>22}"
            sooner = f"{ratio(rounds, NATIVE, way, 'first'):19.2f}x"
            rate = f"{middle['rate']:10.1f}{_span(run['rate'] for run in runs):>20}"
            against = f"{ratio(rounds, way, HUGGING_FACE, 'rate'):7.2f}x{ratio(rounds, way, NATIVE, 'rate'):9.2f}x"
            rest = f"{middle['bytes'] / batch / 1024:18.1f}{middle['same']:13.0%}{_others(runs):>8}"
            out.append(f"{way:23}{batch:5}{first}{sooner}{rate}{against}{rest}")
    return out


def share_line(chorus: int, prefix: int) -> str:
    """What compression keeps of a prompt's cache."""
    return f"cache kept: {chorus} of {prefix} places, {chorus / prefix:.2%}"


def sweep_table(sweep: dict[tuple[int, int], list[Runs]]) -> list[str]:
    """A row for each prefix length and batch size: {(prefix, batch): rounds}."""
    out = [f"{'prefix':>8}{'batch':>7}{'native':>12}{'compressed':>12}  tokens/s{'x native':>10}{'(low - high)':>16}{'others':>8}"]
    for (prefix, batch), rounds in sweep.items():
        rates = [statistics.median(runs[way]["rate"] for runs in rounds) for way in (NATIVE, COMPRESSED)]
        each = [ratio([runs], COMPRESSED, NATIVE, "rate") for runs in rounds]
        others = _others(run for runs in rounds for run in runs.values())
        out.append(
            f"{prefix:8}{batch:7}{rates[0]:12.1f}{rates[1]:12.1f}{'':10}{statistics.median(each):9.2f}x{_span(each, 2):>16}{others:>8}"
        )
    return out


def verdicts(batches: dict[int, list[Runs]], sweep: dict[tuple[int, int], list[Runs]]) -> list[str]:
    """The three goals, each with its figure."""
    sooner = min(ratio(rounds, NATIVE, STORED, "first") for rounds in batches.values())
    decoding = [ratio(rounds, COMPRESSED, NATIVE, "rate") for rounds in (*batches.values(), *sweep.values())]
    out = [
        _verdict(f"from a stored chorus cache the first token comes {SOONER} times sooner than from the picture", sooner, SOONER),
        _verdict(f"compressed decoding is nowhere slower than native ({NOISE:.0%} are noise)", min(decoding), 1 - NOISE),
    ]
    if sweep:
        longest = max(prefix for prefix, _ in sweep)
        at_longest = min(ratio(rounds, COMPRESSED, NATIVE, "rate") for (prefix, _), rounds in sweep.items() if prefix == longest)
        out.append(_verdict(f"compressed decoding is faster at the longest prefix ({longest})", at_longest, 1 + NOISE))
    return out


def _verdict(goal: str, found: float, least: float) -> str:
    return f"{'met   ' if found >= least else 'MISSED'}  {goal}: {found:.2f}x at the least"


def _span(values: Iterable[float], digits: int = 1) -> str:
    """Lowest and highest."""
    values = list(values)
    return f"({min(values):.{digits}f} - {max(values):.{digits}f})"


def _others(runs: Iterable[dict[str, float]]) -> str:
    """Median of the cores that others kept busy, with a mark where any run was contended."""
    cores = [run["others"] for run in runs]
    return f"{statistics.median(cores):.2f}" + ("*" if max(cores) > CONTENDED else " ")
