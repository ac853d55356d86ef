"""Opponent: sentence-transformers' own recipe on the same backbone; retrieval alone, for the library has no language-modelling loss.

Its trainer, its Transformer and Pooling modules, CachedMultipleNegativesRankingLoss in mini-batches of the whole batch, the library's
defaults otherwise. Pictures are decoded and processed in its collate function.
"""

import json
import shutil
from pathlib import Path

import datasets
import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import TrainerCallback

from tests.benchmarks.throughput.clock import Clock
from tests.benchmarks.throughput.task import Task


class Stamps(TrainerCallback):
    """Stamps the clock when a step ends; `count` sees what goes into the loss."""

    def __init__(self, clock: Clock):
        self.clock, self.tokens, self.places = clock, 0, 0

    def count(self, _, inputs) -> None:
        masks = [features["attention_mask"] for features in inputs[0]]
        self.tokens, self.places = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)

    def on_step_end(self, *args, **kwargs) -> None:
        self.clock.step(self.tokens, self.places)


def run(task: Task) -> dict[str, float]:
    """Train on the task's pairs; the library draws their order."""
    torch.set_num_threads(task.threads)
    datasets.disable_progress_bars()
    pairs = [pair for batch in task.batches() for pair in batch]
    columns = {"anchor": [{"text": p.query, "image": p.image} for p in pairs], "positive": [p.target for p in pairs]}
    anchor = {"text": datasets.Value("string"), "image": datasets.Image()}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features({"anchor": anchor, "positive": datasets.Value("string")}))
    backbone = Transformer(str(_folder(task)), processor_kwargs={"max_pixels": task.max_pixels})
    pooling = Pooling(backbone.get_embedding_dimension(), pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[backbone, pooling], device="cpu")
    loss = CachedMultipleNegativesRankingLoss(model, scale=50.0, mini_batch_size=task.batch)
    stamps = Stamps(Clock(task))
    loss.register_forward_pre_hook(stamps.count)
    settings = SentenceTransformerTrainingArguments(
        output_dir=f"{task.folder}/sentence-run",
        max_steps=task.warmup + task.steps,
        per_device_train_batch_size=task.batch,
        learning_rate=1e-4,
        use_cpu=True,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    SentenceTransformerTrainer(model=model, args=settings, train_dataset=data, loss=loss, callbacks=[stamps]).train()
    return stamps.clock.result()


def _folder(task: Task) -> Path:
    """The checkpoint with a processor that the library can open without torchvision.

    Qwen2VLProcessor cannot be built without it, for its video half. PaddleOCR-VL's treats images alike and has no such half: one
    placeholder becomes as many as the image has tokens. It asks the tokenizer which that is.
    """
    folder = Path(task.folder) / "sentence"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(f"{task.folder}/base", folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "PaddleOCRVLProcessor"}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_specific_special_tokens"] = {"image_token": "<|image_pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
