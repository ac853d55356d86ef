"""A small tokenizer for a small checkpoint: sentencepiece learns the pieces, the Hugging Face file format carries them.

The sentencepiece BPE model is rebuilt as a `tokenizers` BPE model, its merges in the order of its scores, so that the folder holds an
ordinary `tokenizer.json`. Byte fallback makes every string encodable and decodable (but for "▁", which
reads as a space); no normalisation touches the text.
Qwen2-VL's special tokens stand above the learnt vocabulary, in the order of the real checkpoints.
"""

import io
import re
from collections.abc import Iterable

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""The fourteen special tokens of Qwen2-VL in the order of their ids (151643 to 151656 in the published checkpoints)."""

CHAT_TEMPLATE = """\
{%- if messages and messages[0]['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' -%}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part['type'] == 'text' -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def train_sentencepiece(sentences: Iterable[str], vocab_size: int) -> sentencepiece.SentencePieceProcessor:
    """Learn a BPE vocabulary of at most `vocab_size` pieces (bytes included); fewer where the corpus does not hold that many."""
    sentences = list(sentences)
    try:
        return _train(sentences, vocab_size)
    except RuntimeError as error:
        # "Vocabulary size too high (1024). Please set it to a value <= 431."
        reachable = re.search(r"<= (\d+)", str(error))
        if not reachable:
            raise
        return _train(sentences, int(reachable[1]))


def _train(sentences: list[str], vocab_size: int) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n"],
        bos_id=-1,
        eos_id=-1,
        num_threads=1,  # the result must not depend on the machine
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def to_hugging_face(pieces: sentencepiece.SentencePieceProcessor) -> PreTrainedTokenizerFast:
    """The same segmentation as an ordinary fast tokenizer with Qwen2-VL's special tokens and chat template."""
    names = [pieces.id_to_piece(i) for i in range(pieces.vocab_size())]
    vocabulary = {name: i for i, name in enumerate(names)}
    # only learnt pieces are merged: not the unknown piece, the newline, or the byte pieces
    learnt = {name: pieces.get_score(i) for i, name in enumerate(names) if not (pieces.is_byte(i) or pieces.is_unknown(i) or name == "\n")}
    merges = generate_merges({name: vocabulary[name] for name in learnt}, learnt)
    unknown = pieces.id_to_piece(pieces.unk_id())
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    metaspace = {"replacement": "▁", "prepend_scheme": "never", "split": False}
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(**metaspace)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(**metaspace)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )
