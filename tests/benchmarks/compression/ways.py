"""The ways of answering that are timed, all on the same prompts and weights, all decoding the same number of tokens.

Each stamps the clock whenever the logits of a token are ready. First token: from token ids and pixels in memory, or from the path of the
stored chorus cache, to the first stamp.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel

from pipeline.evaluate.generate import Answerer, Context, Mode
from pipeline.evaluate.open import Opened
from pipeline.evaluate.stored import StoredContext
from tests.benchmarks.compression.prompts import Packed, Prompts, text_prefix

HUGGING_FACE, NATIVE, COMPRESSED, STORED = "Hugging Face generate", "ours, native", "ours, compressed", "ours, stored chorus"

Way = Callable[[], "Timing"]


@dataclass
class Timing:
    """One run of one way."""

    clock: Callable[[], float]
    stamps: list[float] = field(default_factory=list)
    tokens: Tensor | None = None
    """int64 [B, N] what was decoded."""
    cache_bytes: int = 0
    """Keys and values kept of all prefixes."""

    def stamp(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.stamps.append(self.clock())

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.stamps[1] - self.stamps[0]

    @property
    def rate(self) -> float:
        """Decoded tokens a second: sequences over the median gap between two tokens."""
        gaps = [after - before for before, after in zip(self.stamps[1:], self.stamps[2:], strict=False)]
        return len(self.tokens) / statistics.median(gaps)


class Stamped(Answerer):
    """Answers as it always does, but never early, and notes when logits were ready and what was chosen."""

    def __init__(self, opened: Opened, prompts: Prompts | None, timing: Timing):
        stop = opened.answerer.stop_ids.tolist()
        collator = Packed(prompts.packed) if prompts else opened.collator
        super().__init__(opened.model, collator, opened.encoder.tokenizer, stop, [*stop, *opened.answerer.banned_ids.tolist()])
        self.timing, self.chosen = timing, []

    def _choose(self, logits_BV: Tensor) -> Tensor:
        self.timing.stamp()
        self.chosen.append(super()._choose(logits_BV))
        return self.chosen[-1]

    def run(self, context: Context, mode: Mode, prompts: Prompts, new_tokens: int) -> Timing:
        """Decode from a context that was read or stored; its share of the cache is checked when all is timed."""
        self.continue_from(context, prompts.questions, prompts.positions, new_tokens)
        self.timing.tokens = torch.stack(self.chosen, 1)[:, :new_tokens].cpu()
        check_share(context, mode, prompts)
        self.timing.cache_bytes = cache_bytes(context)
        return self.timing


def ways(opened: Opened, stock: PreTrainedModel, prompts: Prompts, clock: Callable[[], float] = time.perf_counter) -> dict[str, Callable]:
    """Every way by name; each takes the number of tokens to decode."""
    return {
        HUGGING_FACE: partial(_generate, stock, opened, prompts, clock),
        NATIVE: partial(_from_pictures, opened, prompts, "native", clock),
        COMPRESSED: partial(_from_pictures, opened, prompts, "compressed", clock),
        STORED: partial(_from_stored, opened, prompts, clock),
    }


def _from_pictures(opened: Opened, prompts: Prompts, mode: Mode, clock: Callable, new_tokens: int) -> Timing:
    answerer = Stamped(opened, prompts, Timing(clock))
    answerer.timing.stamp()
    return answerer.run(answerer.read(prompts.prefixes, mode), mode, prompts, new_tokens)


def _from_stored(opened: Opened, prompts: Prompts, clock: Callable, new_tokens: int) -> Timing:
    answerer = Stamped(opened, prompts, Timing(clock))
    answerer.timing.stamp()
    context = StoredContext.load(prompts.stored).context(next(opened.model.parameters()))
    return answerer.run(context, "compressed", prompts, new_tokens)


@torch.inference_mode()
def _generate(stock: PreTrainedModel, opened: Opened, prompts: Prompts, clock: Callable, new_tokens: int) -> Timing:
    never = Stamped(opened, prompts, Timing(clock)).banned_ids.tolist()
    timing, batch, ids = Timing(clock), prompts.packed.to(stock.device), prompts.whole.to(stock.device)

    def stamp(_, scores: Tensor) -> Tensor:
        timing.stamp()
        return scores

    timing.stamp()
    out = stock.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == stock.config.image_token_id).int(),
        pixel_values=batch.pixels.to(stock.dtype),
        image_grid_thw=batch.grids,
        do_sample=False,
        max_new_tokens=new_tokens,
        suppress_tokens=never,
        logits_processor=LogitsProcessorList([stamp]),
        return_dict_in_generate=True,
    )
    timing.tokens = out.sequences[:, ids.shape[1] :].cpu()
    layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
    timing.cache_bytes = sum(part.nbytes for pair in layers for part in pair) // layers[0][0].shape[2] * prompts.prefix
    return timing


def swept(opened: Opened, prefix: int, batch: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Callable]:
    """Native and compressed decoding after a text of exactly `prefix` tokens, which is read here, once, and stands in every row."""
    sequence, question = text_prefix(opened.encoder, prefix)
    start = int(opened.collator.positions(sequence).max()) + 1
    positions = [start + torch.arange(len(question))] * batch

    def decode(context: Context, new_tokens: int) -> Timing:
        answerer = Stamped(opened, None, Timing(clock))
        answerer.timing.stamp()
        answerer.continue_from(context, [question] * batch, positions, new_tokens)
        answerer.timing.tokens = torch.stack(answerer.chosen, 1)[:, :new_tokens].cpu()
        return answerer.timing

    out = {}
    for name, mode in ((NATIVE, "native"), (COMPRESSED, "compressed")):
        read = opened.answerer.read([sequence], mode)
        repeated = [[part.repeat(batch, 1, 1, 1) for part in parts] for parts in (read.keys, read.values)]
        out[name] = partial(decode, Context(*repeated, read.visible_BC.repeat(batch, 1), read.prefix_lengths * batch))
    return out


def cache_bytes(context: Context) -> int:
    """Bytes of a context's keys and values."""
    return sum(part.nbytes for part in (*context.keys, *context.values))


def check_share(context: Context, mode: Mode, prompts: Prompts) -> None:
    """The kept share is K / prefix length exactly, in places and in bytes.

    Raises:
        AssertionError: it is not.
    """
    kept = prompts.packed.chorus_index.shape[1] if mode == "compressed" else prompts.prefix
    expected = [kept / prompts.prefix] * len(prompts.prefixes)
    a_place = sum(part[:, :, :1].nbytes for part in (*context.keys, *context.values))
    if context.cache_shares != expected or cache_bytes(context) != kept * a_place:
        raise AssertionError(f"{mode}: found shares {context.cache_shares}, {cache_bytes(context)} bytes; expected {expected}")
