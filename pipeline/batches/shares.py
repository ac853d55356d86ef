"""What a run takes from each source, as a table: computed from the plan, before the first step."""

from dataclasses import dataclass

from pipeline.batches.plan import Mixture


@dataclass(frozen=True)
class Share:
    """One source's part in a run."""

    kind: str
    """pairs or conversations."""
    source: str
    rows: int
    """Distinct rows that the run may use."""
    of: int
    """Rows that the source has."""
    weight: float
    share: float
    """Of all rows of this kind that the run takes, repeated ones included."""
    passes: float
    """How often the run goes through the used rows."""
    last_step: int | None
    """The step with the source's last rows (counted from 1), where the run leaves it out from then on."""


def shares(kind: str, mixture: Mixture, turns: int, steps: int) -> list[Share]:
    """What `steps` steps of `turns` turns each take."""
    taken = mixture.taken(turns * steps)
    last = {p.ends: -(-p.stop // turns) for p in mixture.phases if p.stop is not None and p.stop <= turns * steps}
    return [
        Share(kind, s.name, used, s.count, weight, rows / sum(taken), rows / used, last.get(i))
        for i, (s, used, weight, rows) in enumerate(zip(mixture.sources, mixture.used, mixture.weights, taken, strict=True))
    ]


def table(found: list[Share], steps: int) -> str:
    """As shown at the start of a run."""
    width = max(len("source"), *(len(share.source) for share in found))
    lines = [f"  plan of {steps} steps", f"    {'source':{width}}  {'kind':13}  {'rows':>21}  {'weight':>10}  {'share':>7}  {'passes':>8}"]
    for own in found:
        rows = f"{own.rows:,}" if own.rows == own.of else f"{own.rows:,} of {own.of:,}"
        ends = f"  left out after step {own.last_step}" if own.last_step else ""
        numbers = f"{rows:>21}  {own.weight:>10.6g}  {own.share:>7.2%}  {own.passes:>8.2f}"
        lines.append(f"    {own.source:{width}}  {own.kind:13}  {numbers}{ends}")
    return "\n".join(lines)
