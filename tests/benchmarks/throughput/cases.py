"""What can be timed, by name; and one case, timed where nothing has run before."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from pipeline import comm
from pipeline.allocator import keep_freed_memory
from pipeline.ports import free_port
from tests.benchmarks.throughput.others import Others
from tests.benchmarks.throughput.task import Task

PADDED, SENTENCE, CEILING = "padded PyTorch step", "sentence-transformers, cached", "model alone, perfectly packed"


def names(stages: list[int], ranks: int, bf16: bool) -> list[str]:
    """The cases of a round, in order: opponents, the trainer, the ceilings."""
    out = [PADDED, SENTENCE, *(f"trainer, ZeRO-{stage}" for stage in stages)]
    if ranks > 1:
        out += [f"trainer, ZeRO-{stage}, {ranks} ranks" for stage in stages]
    if bf16:
        out += [f"trainer, ZeRO-{stage}, bf16" for stage in stages]
    return [*out, CEILING, *(f"bare DeepSpeed loop, ZeRO-{stage}" for stage in stages)]


def in_fresh_processes(name: str, task: Task) -> dict[str, float]:
    """One case on as many new ranks as it names; its result, and "others": cores that other processes kept busy meanwhile."""
    ranks = int(name.split()[-2]) if name.endswith("ranks") else 1
    port, others = str(free_port()), Others()
    common = {"WORLD_SIZE": ranks, "LOCAL_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HF_HUB_OFFLINE": 1}
    common |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": max(1, task.threads // ranks)}
    command = [sys.executable, "-m", "tests.benchmarks.throughput.cases", name, json.dumps(asdict(task))]
    with tempfile.TemporaryDirectory() as folder:
        logs, started = [Path(folder, str(rank)) for rank in range(ranks)], []
        for rank, log in enumerate(logs):
            variables = common | {"RANK": rank, "LOCAL_RANK": rank}
            env = os.environ | {key: str(value) for key, value in variables.items()}
            with log.open("w") as file:
                started.append(subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT))
        try:
            codes = [process.wait(timeout=900) for process in started]
        finally:
            for process in started:
                process.kill()
        said = [log.read_text() for log in logs]
    if any(codes):
        raise RuntimeError(f"{name}: a rank ended with {codes}:\n" + "\n".join(text[-3000:] for text in said))
    return json.loads(said[0].splitlines()[-1]) | {"others": others.cores()}


def run(name: str, task: Task) -> dict[str, float]:
    """One case, in this process, as one of its ranks."""
    # imports are a part of the case: none loads another's libraries
    stage = int(name.split("ZeRO-")[1][0]) if "ZeRO-" in name else None
    if name == PADDED:
        from tests.benchmarks.throughput import padded

        return padded.run(task)
    if name == SENTENCE:
        from tests.benchmarks.throughput import sentence

        return sentence.run(task)
    if name.startswith("trainer"):
        from tests.benchmarks.throughput import trainer

        return trainer.run(task, stage, bf16=name.endswith("bf16"))
    from tests.benchmarks.throughput import ceiling

    return ceiling.run(task) if name == CEILING else ceiling.run_deepspeed(task, stage)


if __name__ == "__main__":
    keep_freed_memory()  # on all sides alike
    found = run(sys.argv[1], Task(**json.loads(sys.argv[2])))
    comm.shutdown()
    print("\n" + json.dumps(found), flush=True)
