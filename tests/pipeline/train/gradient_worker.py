"""One rank of the gradient caching test: steps on real engines, each full gradient against one graph of one process.

A configuration is drawn from its seed: sources, sizes, how many chunks each rank has, losses, dropout. The engine runs `train_step`, with
the gradient read before an update at rate 0. The reference keeps the graphs of all chunks of all ranks, with the same seeds, writes down
the objective once and differentiates once.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import worker
from deepspeed.utils import safe_get_full_grad
from torch import Tensor, nn

from data_prep.encode import EncodedSample, Encoder
from pipeline import comm
from pipeline.batches.collate import Collator, Job, pack
from pipeline.batches.loader import RankStep, StepLoader, content_key
from pipeline.batches.plan import hash64
from pipeline.batches.reader import ShardReader
from pipeline.config import LossSettings, RunConfig
from pipeline.losses.contrastive import ContrastiveInputs, info_nce
from pipeline.model.crem import Crem, load_backbone
from pipeline.model.trainable import make_trainable
from pipeline.train import step
from pipeline.train.engine import Engine, gather


class Recorder:
    """A `Trainable` that reads the full gradient where the engine would update, and updates by nothing."""

    def __init__(self, engine: Engine, factor: float = 1.0):
        self.engine, self.factor = engine, factor

    def forward(self, batch):
        return self.engine.forward(batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        self.engine.backward(loss * self.factor, last)

    def step(self, learning_rate: float) -> tuple[float, bool]:
        trained = [(name, weight) for name, weight in self.engine.model.named_parameters() if weight.requires_grad]
        self.gradient = {name: safe_get_full_grad(weight).detach().clone() for name, weight in trained}
        return self.engine.step(0.0)


class Splitting(StepLoader):
    """Cuts each rank's sequences into a drawn number of chunks, where the real one fills a budget."""

    def __init__(self, *args, key: str):
        super().__init__(*args)
        draw = random.Random(f"{key}, rank {self.rank}")
        self.count, self.text_first = draw.randint(1, 8), draw.random() < 0.5

    def _chunks(self, jobs: list[Job]) -> list[list[list[Job]]]:
        if self.text_first:
            jobs = sorted(jobs, key=lambda job: len(job.sequence.images))
        count = min(self.count, len(jobs))
        parts = [jobs[i * len(jobs) // count : (i + 1) * len(jobs) // count] for i in range(count)]
        lengths = [[len(job.sequence) for job in part] for part in parts]
        return [[[part[i] for i in row] for row in pack(own, max(128, *own))] for part, own in zip(parts, lengths, strict=True)]


PLACES = ("nowhere", "everywhere", "queries", "positives", "anywhere")
"""Where a rank's pairs have images."""


class Patterned(Splitting):
    """As `Splitting`, and what each rank sees of images is drawn: pairs that have them in the places drawn for that rank, or none at all.

    Conversations without an image there are none of, so a rank has either some with or none at all.
    """

    def __init__(self, *args, key: str):
        super().__init__(*args, key=key)
        draw = random.Random(key)
        text_only = draw.random() < 0.2
        self.talks = not text_only and draw.random() < 0.3
        by_pattern: dict[str, list[int]] = {place: [] for place in PLACES}
        for number in range(sum(source.count for source in self.pairs.sources)):
            by_pattern["anywhere"].append(number)
            by_pattern[_shown(self.reader.row(number))].append(number)
        learning = False
        while not learning:  # where all queries, or all positives, are the same, all negatives are masked
            patterns = ["nowhere" if text_only else draw.choice(PLACES) for _ in range(self.world)]
            self._drawn = [draw.choices(by_pattern[pattern], k=self.config.batch.pairs // self.world) for pattern in patterns]
            rows = [self.reader.row(number) for own in self._drawn for number in own]
            learning = all(
                len({content_key(side) for side in sides}) > 1 for sides in zip(*((r.query, r.positive) for r in rows), strict=True)
            )

    def pair_rows(self, number: int) -> list[int]:
        return [row for rows in zip(*self._drawn, strict=True) for row in rows]

    def conversation_rows(self, number: int) -> list[int]:
        return super().conversation_rows(number) if self.talks else []


def _shown(row: EncodedSample) -> str:
    """Which sides of a pair have images; a hard negative counts with the positive."""
    targets = any(side.images for side in (row.positive, *row.negatives))
    return {(False, False): "nowhere", (True, True): "everywhere", (True, False): "queries"}.get(
        (bool(row.query.images), targets), "positives"
    )


def configuration(key: str, scenario: dict, world: int) -> tuple[RunConfig, int, float]:
    """A run, a step number and a dropout rate."""
    draw = random.Random(key)
    loss = LossSettings(
        retrieval_weight=draw.choice([0.5, 1.0, 2.0]),
        generation_weight=draw.choice([0.0, 0.5, 1.0]),
        temperature=draw.choice([0.05, 0.2, 0.5]),
        symmetric=draw.random() < 0.5,
    )
    config = {
        "seed": draw.randrange(1000),
        "model": scenario["model"],
        "data": {"shards": scenario["shards"], "weights": draw.choice([{}, {"plain": 0}, {"asked": 0}, {"plain": 1, "asked": 5}])},
        "batch": {"pairs": world * draw.randint(2 if world == 1 else 1, 4), "sub_batch": 1, "conversations": draw.randint(0, 2 * world)},
        "loss": loss.model_dump(),
    }
    return RunConfig.model_validate(config), draw.randrange(100), draw.choice([0.05, 0.2, 0.5])


def set_dropout(model: Crem, share: float) -> None:
    """In the adapters, where there are any, and on the attention weights of the language model."""
    for module in model.backbone.model.language_model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = share


def reference(model: Crem, works: list[RankStep], config: RunConfig, number: int) -> dict[str, Tensor]:
    """The gradient of the objective as it is written down, all ranks and chunks in one graph."""
    model.zero_grad()
    answers, parts = torch.zeros(()), []
    for rank, work in enumerate(works):
        slots, rows = [], []
        for i, chunk in enumerate(work.chunks):
            torch.manual_seed(step.forward_seed(config.seed, number, rank, i))
            embeddings_SD, losses_N = model(chunk)
            answers = answers + losses_N.sum()
            slots.append(chunk.embedding_slots)
            rows.append(embeddings_SD)
        place = torch.cat(slots)
        order = place.argsort()[(place < 0).sum() :]
        parts.append(torch.cat(rows)[order])
    pairs = works[0].pairs
    queries, positives, negatives = (
        torch.cat([part[first:last] for part in parts]) for first, last in ((0, pairs), (pairs, 2 * pairs), (2 * pairs, None))
    )
    keys = [torch.cat([work.keys[a:b] for work in works]) for a, b in ((0, pairs), (pairs, 2 * pairs), (2 * pairs, None))]
    inputs = ContrastiveInputs(queries, torch.cat([positives, negatives]), keys[0], torch.cat(keys[1:]), torch.arange(len(queries)))
    retrieval = info_nce(inputs, config.loss.temperature, config.loss.symmetric).loss_sum / len(queries)
    generation = answers / max(1, sum(work.answer_tokens for work in works))
    (config.loss.retrieval_weight * retrieval + config.loss.generation_weight * generation).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """max |difference| / max |gradient| over the parameter set."""
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    return max(float((found[name] - gradient).abs().max()) for name, gradient in expected.items()) / largest


@contextmanager
def other_masks_while_embedding() -> Iterator[None]:
    """The replay draws what the reference draws; the embeddings whose gradient was cached had other masks."""
    right = step.forward_seed
    with patch.object(step, "forward_seed", lambda *key: right(*key) if torch.is_grad_enabled() else hash64("other", *key)):
        yield


@contextmanager
def own_rows_only() -> Iterator[None]:
    """The gradient with respect to the embeddings is not added up over ranks; counts and losses are."""
    right = comm.sum_
    with patch.object(comm, "sum_", lambda tensor: tensor if tensor.ndim == 2 else right(tensor)):
        yield


def run(scenario: dict) -> dict:
    """All configurations of a scenario; rank 0 returns a record of each."""
    world = comm.world_size()
    first, _, _ = configuration("warm-up", scenario, world)
    plain = make_trainable(load_backbone(first.model.checkpoint, torch.float32), first.model, first.seed).train()
    engine = worker.build(scenario, first)
    encoder = Encoder(first.model.checkpoint)
    collator = Collator(encoder.images, plain.backbone.model.get_rope_index, encoder.image_id, encoder.tokenizer.pad_token_id)
    reader = ShardReader(first.data.shards, encoder, verify=False)
    _warm_up(engine, plain, StepLoader(reader, collator, first, comm.rank(), world), first)
    results = []
    for key in scenario["keys"]:
        config, number, dropout = configuration(key, scenario, world)
        cut = Patterned if scenario.get("patterns") else Splitting
        works = [cut(reader, collator, config, rank, world, key=key).step(number) for rank in range(world)]
        for model in (engine.model, plain):
            set_dropout(model, dropout)
        expected = reference(plain, works, config, number) if comm.rank() == 0 else None

        def error(recorder: Recorder, config=config, number=number, own=works[comm.rank()], expected=expected) -> float | None:
            step.train_step(recorder, own, collator([]), config.loss, 0.0, torch.device("cpu"), (config.seed, number))
            return difference(recorder.gradient, expected) if expected else None

        record = _describe(works) | {"key": key, "error": error(Recorder(engine))}
        if scenario.get("controls"):
            record["controls"] = _controls(engine, error, record["chunks"], world)
        results.append(record)
    return {"results": results}


def _warm_up(engine: Engine, plain: Crem, loader: StepLoader, config: RunConfig) -> None:
    """Two updates, so that no factor B of an adapter is zero any more; then the reference takes over the weights."""
    for number in range(2):
        step.train_step(engine, loader.step(number), loader.blank(), config.loss, 1e-2, torch.device("cpu"), (config.seed, number))
    own = dict(plain.named_parameters())
    with torch.no_grad():
        for name, weight in engine.model.named_parameters():
            with gather([weight]):
                own[name].copy_(weight)


def _controls(engine: Engine, error: Callable, chunks: int, world: int) -> dict[str, float | None]:
    out = {}
    if chunks > 1:
        with other_masks_while_embedding():
            out["no replay of randomness"] = error(Recorder(engine))
    if world > 1:
        out["no world-size factor"] = error(Recorder(engine, factor=1 / world))
        with own_rows_only():
            out["no sum over ranks"] = error(Recorder(engine))
    return out


def _describe(works: list[RankStep]) -> dict:
    shown = [[int(chunk.image_tokens) for chunk in work.chunks] for work in works]
    return {
        "chunks": max(len(own) for own in shown),
        "uneven": len({len(own) for own in shown}) > 1,
        "chunk without images": any(not tokens for own in shown for tokens in own) and any(map(sum, shown)),
        "no image at all": not any(map(sum, shown)),
        "image tokens": [sum(own) for own in shown],
        "rank without images": any(not sum(own) for own in shown) and any(map(sum, shown)),
    }


if __name__ == "__main__":
    worker.main(run)
