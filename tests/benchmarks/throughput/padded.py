"""Opponent: the CREM step as one writes it first, in plain PyTorch, with padding.

Three padded forwards of the stock model: queries; targets; queries again with question and answer, under a dense 4D mask. Logits for every
token. The image processor runs in the collate function, so the next batch waits for this one, as DataLoader does by default.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForImageTextToText

from data_prep.checkpoint import load_config, load_image_processor
from data_prep.encode import Encoder
from data_prep.images import open_image
from data_prep.samples import ImageRef
from data_prep.template import SYSTEM
from tests.benchmarks.throughput.clock import Clock
from tests.benchmarks.throughput.task import QUESTION, Pair, Task

IGNORED = -100


class Padded:
    """Model, collate function and loss of the reference."""

    def __init__(self, task: Task):
        encoder = Encoder(task.checkpoint)  # for the ids of marks, not for its work
        self.tokenizer, self.chorus, self.image_id = encoder.tokenizer, encoder.chorus_ids, encoder.image_id
        self.chorus_text = "".join(self.tokenizer.convert_ids_to_tokens(self.chorus))
        self.images = load_image_processor(task.checkpoint, load_config(task.checkpoint))
        self.images.size["longest_edge"] = task.max_pixels
        self.model = AutoModelForImageTextToText.from_pretrained(task.checkpoint, dtype=torch.float32, attn_implementation="sdpa").train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01)

    def collate(self, pairs: list[Pair]) -> dict[str, dict[str, Tensor]]:
        """Read, process, tokenize and pad: inputs of the three forwards."""
        pictures = [open_image(ImageRef(pair.image, data=Path(pair.image).read_bytes())) for pair in pairs]
        seen = self.images(images=pictures, return_tensors="pt")
        counts = (seen["image_grid_thw"].prod(1) // self.images.merge_size**2).tolist()
        queries = [self.user(pair.query, count) for pair, count in zip(pairs, counts, strict=True)]
        answers = [pair.target + "<|im_end|>" for pair in pairs]
        asked = f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        whole = [query + asked + answer for query, answer in zip(queries, answers, strict=True)]
        out = {"queries": self.pad(queries) | seen, "targets": self.pad([self.user(pair.target) for pair in pairs])}
        out["answers"] = self.pad(whole) | seen
        lengths = torch.tensor([len(ids) for ids in self.tokenizer(answers)["input_ids"]])
        out["answers"]["labels"] = labels(out["answers"], lengths)
        out["answers"]["attention_mask"] = self.mask(out["answers"], torch.tensor([pair.compressed for pair in pairs]))
        return out

    def user(self, text: str, image_tokens: int = 0) -> str:
        """A user's turn by the chat template, left open, image tokens in place, and the chorus."""
        content = [{"type": "image"}] * (image_tokens > 0) + [{"type": "text", "text": text}]
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
        turn = self.tokenizer.apply_chat_template(messages, tokenize=False)
        turn = turn[: turn.rindex("<|im_end|>")].replace("<|image_pad|>", "<|image_pad|>" * image_tokens)
        return turn + self.chorus_text

    def pad(self, texts: list[str]) -> dict[str, Tensor]:
        out = dict(self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", return_token_type_ids=False))
        return out | {"mm_token_type_ids": (out["input_ids"] == self.image_id).long()}

    def mask(self, batch: dict[str, Tensor], compressed_B: Tensor) -> Tensor:
        """bool [B, 1, T, T]: causal, no padding; where z = 1, nothing after the chorus sees anything before it."""
        ids_BT = batch["input_ids"]
        place_T = torch.arange(ids_BT.shape[1])
        first_B = (ids_BT == self.chorus[0]).int().argmax(1)[:, None]
        after_BT, before_BT = place_T >= first_B + len(self.chorus), place_T < first_B
        hidden_BTT = (compressed_B[:, None] & after_BT)[:, :, None] & before_BT[:, None, :]
        seen_BTT = (place_T[:, None] >= place_T) & batch["attention_mask"].bool()[:, None, :] & ~hidden_BTT
        return (seen_BTT | torch.eye(len(place_T), dtype=torch.bool))[:, None]  # padding sees itself: a softmax over nothing is NaN

    def embed(self, batch: dict[str, Tensor]) -> Tensor:
        """The chorus's mean state: [B, D], unit length."""
        states_BTD = self.model.model(**batch, use_cache=False).last_hidden_state
        chorus_BT = torch.isin(batch["input_ids"], torch.tensor(self.chorus))
        return F.normalize(states_BTD[chorus_BT].view(len(states_BTD), len(self.chorus), -1).float().mean(1), dim=-1)

    def loss(self, batches: dict[str, dict[str, Tensor]], temperature: float = 0.02, weight: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
        """Joint loss, InfoNCE, mean cross-entropy of answer tokens."""
        scores = self.embed(batches["queries"]) @ self.embed(batches["targets"]).T / temperature
        retrieval = F.cross_entropy(scores, torch.arange(len(scores)))
        answers = dict(batches["answers"])
        rope = self.model.model.get_rope_index(answers["input_ids"], answers["mm_token_type_ids"], image_grid_thw=answers["image_grid_thw"])
        generation = self.model(**answers, position_ids=rope[0], use_cache=False).loss
        return retrieval + weight * generation, retrieval, generation

    def step(self, batches: dict[str, dict[str, Tensor]]) -> None:
        self.loss(batches)[0].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def labels(batch: dict[str, Tensor], lengths_B: Tensor) -> Tensor:
    """The last `lengths_B` real tokens of every row; all else is ignored: int64 [B, T]."""
    end_B1 = batch["attention_mask"].sum(1, keepdim=True)
    place_T = torch.arange(batch["input_ids"].shape[1])
    wanted_BT = (place_T < end_B1) & (place_T >= end_B1 - lengths_B[:, None])
    return batch["input_ids"].where(wanted_BT, torch.tensor(IGNORED))


def run(task: Task) -> dict[str, float]:
    """Train on the task's batches."""
    torch.set_num_threads(task.threads)
    padded = Padded(task)
    everything = list(task.batches())
    clock = Clock(task)
    for pairs in everything:
        batches = padded.collate(pairs)
        padded.step(batches)
        ids = [batch["input_ids"] for batch in batches.values()]
        clock.step(sum(int((own != padded.tokenizer.pad_token_id).sum()) for own in ids), sum(own.numel() for own in ids))
    return clock.result()
