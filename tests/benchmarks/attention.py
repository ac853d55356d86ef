"""Memory and time of the dense mask against two causal attentions: python -m tests.benchmarks.attention [--tokens 4096]

One forward and backward of the language model of the small base checkpoint (2 M parameters, random weights, float32) over one packed row,
once as a single sequence and once as sequences of 256 tokens. Every sequence is 7/10 context, then 16 chorus tokens, prompt and answer, and
every other one has z = 1. Each way in a fresh process: growth of the process's peak memory (ru_maxrss) over what it had with the weights
in place and a short pass behind it, and the median seconds of three passes. The last column is the largest difference of a final state
from the dense mask's, relative to its largest value. A CPU alone: what flash kernels make of either on a GPU is not yet measured.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from data_prep.schema import Role
from pipeline.model.base import write_base
from pipeline.model.crem import load_backbone
from pipeline.model.mask import compression_mask
from pipeline.model.two_causal import cut

WAYS = ("sdpa", "two_causal")
CHORUS = 16


def main(argv: list[str] | None = None) -> None:
    """Run every way in its own process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--sequence", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.way:
        measure(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder) / "base", ["a red circle is above the blue square."])
        print(f"{'sequences':>18} {'attention':>11} {'peak growth MiB':>16} {'seconds':>8} {'difference':>11}")
        for sequence in (args.tokens, 256):
            states = {}
            for way in WAYS:
                words = ["--tokens", str(args.tokens), "--sequence", str(sequence), "--way", way, "--folder", folder]
                subprocess.run([sys.executable, "-m", "tests.benchmarks.attention", *words], check=True)
                found = json.loads((Path(folder) / "figures.json").read_text())
                states[way] = torch.load(Path(folder) / "states.pt")
                error = float((states[way] - states["sdpa"]).abs().max() / states["sdpa"].abs().max())
                size = f"{args.tokens // sequence} x {sequence}"
                print(f"{size:>18} {way:>11} {found['mib']:16.0f} {found['seconds']:8.2f} {error:11.1e}", flush=True)


def measure(args: argparse.Namespace) -> None:
    """One way, in this process."""
    model = load_backbone(args.folder / "base", torch.float32, args.way).model.language_model
    one_pass(model, args.way, 64, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        states = one_pass(model, args.way, args.tokens, args.sequence)
        seconds.append(time.perf_counter() - started)
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    torch.save(states, args.folder / "states.pt")
    (args.folder / "figures.json").write_text(json.dumps({"mib": mib, "seconds": statistics.median(seconds)}))


def one_pass(model: torch.nn.Module, way: str, tokens: int, sequence: int) -> torch.Tensor:
    """Final states of one row of `tokens` in sequences of `sequence`, after the backward pass."""
    model.zero_grad()
    at = torch.arange(tokens) % sequence
    context, prompt = sequence * 7 // 10, sequence * 7 // 10 + CHORUS
    roles = (Role.CONTEXT + (at >= context) * 1 + (at >= prompt) * 1 + (at >= prompt + (sequence - prompt) // 2) * 1).to(torch.uint8)
    documents = torch.arange(tokens) // sequence
    rule = (roles[None], documents[None], (documents % 2 == 0)[None])
    how = {"attention_mask": compression_mask(*rule)} if way == "sdpa" else {"attention_mask": None, "pieces": cut(*rule)}
    embeds = torch.randn(1, tokens, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    states = model(inputs_embeds=embeds, position_ids=at.expand(3, 1, tokens), use_cache=False, **how).last_hidden_state
    states.square().mean().backward()
    return states.detach()


if __name__ == "__main__":
    main()
