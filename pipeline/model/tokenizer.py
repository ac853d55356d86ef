"""A small tokenizer for a small checkpoint: sentencepiece learns the pieces, the Hugging Face file format carries them.

The sentencepiece unigram model is rebuilt piece by piece, score by score, as a `tokenizers` Unigram model, so that the folder
holds an ordinary `tokenizer.json`. Byte fallback makes every string encodable and decodable; no normalisation touches the text.
Qwen2-VL's special tokens stand above the learnt vocabulary, in the order of the real checkpoints.
"""

import io
from collections.abc import Iterable

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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
    """Learn a unigram vocabulary of at most `vocab_size` pieces (bytes included); raises on an empty corpus."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=vocab_size,
        hard_vocab_limit=False,  # a small corpus may not hold that many pieces
        model_type="unigram",
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
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.vocab_size())]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=pieces.unk_id(), byte_fallback=True))
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
