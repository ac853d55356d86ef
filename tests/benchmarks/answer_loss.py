"""Memory and time of the answer loss, three ways: python -m tests.benchmarks.answer_loss [--tokens 1024] [--dtype float32]

plain     logits of all tokens, then cross_entropy
library   torch.nn.functional.linear_cross_entropy with its chunking options, per-token losses
ours      pipeline.losses.answer, the vocabulary in blocks

Each in a fresh process, forward and backward: growth of the process's peak memory (ru_maxrss) over what it had with states and weight in
place (the gradients are part of it, the same for all), and the seconds it took. The last columns are the largest differences from the
plain way in the same type, relative to its largest value.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from pipeline.losses.answer import answer_cross_entropy

WAYS = {
    "plain": lambda h, w, y: F.cross_entropy((h @ w.T).float(), y, reduction="none"),
    "library": lambda h, w, y: F.linear_cross_entropy(h, w, y, reduction="none", options=torch.nn.LinearCrossEntropyOptions()),
    "ours": answer_cross_entropy,
}


def main(argv: list[str] | None = None) -> None:
    """Run every way in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.way:
        measure(args)
        return
    words = [word for name in ("tokens", "vocabulary", "hidden", "dtype") for word in (f"--{name}", str(getattr(args, name)))]
    gib = args.vocabulary * args.hidden * getattr(torch, args.dtype).itemsize / 2**30
    print(f"{args.tokens} tokens, vocabulary {args.vocabulary}, hidden {args.hidden}, {args.dtype}; gradient of the weight: {gib:.2f} GiB")
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'':9} {'peak growth GiB':>16} {'seconds':>8} {'losses in':>10} {'loss':>9} {'d states':>9} {'d weight':>9}")
        for way in WAYS:
            out = Path(folder) / way
            command = [sys.executable, "-m", "tests.benchmarks.answer_loss", *words, "--way", way, "--out", str(out)]
            subprocess.run(command, check=True)
            found = json.loads((out / "figures.json").read_text())
            errors = [_error(Path(folder), way, name) for name in ("loss", "states", "weight")]
            figures = f"{found['gib']:16.2f} {found['seconds']:8.2f} {found['dtype']:>10} " + " ".join(f"{e:9.1e}" for e in errors)
            print(f"{way:9} {figures}", flush=True)


def measure(args: argparse.Namespace) -> None:
    """One way, in this process."""
    generator, dtype = torch.Generator().manual_seed(0), getattr(torch, args.dtype)
    hidden = torch.randn(args.tokens, args.hidden, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(args.vocabulary, args.hidden, generator=generator, dtype=dtype).mul_(0.02).requires_grad_()
    labels = torch.randint(args.vocabulary, (args.tokens,), generator=generator)
    (torch.ones(64, 64, dtype=dtype) @ torch.ones(64, 64, dtype=dtype)).sum()  # the libraries' own buffers
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    losses = WAYS[args.way](hidden, weight, labels)
    losses.float().mean().backward()
    seconds = time.perf_counter() - started
    gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    args.out.mkdir()
    # a part of the weight's gradient is enough to compare
    torch.save({"loss": losses.detach(), "states": hidden.grad, "weight": weight.grad[::64].clone()}, args.out / "values.pt")
    figures = {"gib": gib, "seconds": seconds, "dtype": str(losses.dtype).removeprefix("torch.")}
    (args.out / "figures.json").write_text(json.dumps(figures))


def _error(folder: Path, way: str, name: str) -> float:
    ours, plain = (torch.load(folder / w / "values.pt")[name].float() for w in (way, "plain"))
    return float((ours - plain).abs().max() / plain.abs().max())


if __name__ == "__main__":
    main()
