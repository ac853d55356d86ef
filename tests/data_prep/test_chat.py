"""The marks of the chat format come from the checkpoint's chat template, whatever it spells."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data_prep.chat import chat_marks
from data_prep.checkpoint import FAMILIES
from data_prep.encode import Encoder
from data_prep.samples import DataError, Side, Turn
from data_prep.template import Mark


@pytest.fixture
def tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """A fresh tokenizer, whose template a test may change."""
    return AutoTokenizer.from_pretrained(checkpoint)


def spelt(tokenizer: PreTrainedTokenizerBase, image_id: int) -> dict[str, str]:
    return {mark.name: tokenizer.decode(ids) for mark, ids in chat_marks(tokenizer, image_id, "folder").items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_chatml(checkpoint_of, family: str) -> None:
    encoder = Encoder(checkpoint_of(family))
    assert spelt(encoder.tokenizer, encoder.image_id) == {
        "HEAD": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
        "IMAGE_START": "<|vision_start|>",
        "IMAGE_END": "<|vision_end|>",
        "ASSISTANT": "<|im_end|>\n<|im_start|>assistant\n",
        "TURN_END": "<|im_end|>",
        "USER": "\n<|im_start|>user\n",
    }
    (turn_end,) = encoder.marks[Mark.TURN_END]
    assert turn_end == encoder.tokenizer.eos_token_id
    assert encoder.marks[Mark.IMAGE_START] == (encoder.tokenizer.convert_tokens_to_ids("<|vision_start|>"),)


def test_another_template_gives_other_marks(tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> None:
    """Another spelling of roles, another order of special tokens, no line breaks."""
    tokenizer.chat_template = (
        tokenizer.chat_template.replace("<|im_start|>", "<|box_start|>")
        .replace("<|im_end|>\\n", "<|box_end|>")
        .replace("<|vision_start|>", "<|quad_start|>")
    )
    assert spelt(tokenizer, encoder.image_id) == {
        "HEAD": "<|box_start|>system\nYou are a helpful assistant.<|box_end|><|box_start|>user\n",
        "IMAGE_START": "<|quad_start|>",
        "IMAGE_END": "<|vision_end|>",
        "ASSISTANT": "<|box_end|><|box_start|>assistant\n",
        "TURN_END": "<|box_end|>",
        "USER": "<|box_start|>user\n",
    }


def test_a_template_without_its_own_system_line_gives_the_same(tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> None:
    """Qwen3-VL's template adds no system line where the messages have none; the prompt always has one."""
    start, end = tokenizer.chat_template.index("{%- if messages and"), tokenizer.chat_template.index("{%- for message in messages")
    tokenizer.chat_template = tokenizer.chat_template[:start] + tokenizer.chat_template[end:]
    assert "You are a helpful" not in tokenizer.chat_template
    assert chat_marks(tokenizer, encoder.image_id, "folder") == encoder.marks


def test_the_encoder_follows_the_template(checkpoint: Path, encoder: Encoder, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|box_start|>")
    other = Encoder(_copy(checkpoint, tmp_path / "other", tokenizer))
    sequence = (Side("a red circle"), (Turn("how many?", "three"),))
    ours, theirs = (one.tokenizer.decode(one.sequence(*sequence).ids) for one in (encoder, other))
    assert theirs == ours.replace("<|im_start|>", "<|box_start|>") != ours
    assert encoder.fingerprint()["template"] != other.fingerprint()["template"]


def _copy(checkpoint: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (None, None, "without a chat template; expected the model's own"),
        ("<|image_pad|>", "", r"does not show \(before\), <\|image_pad\|>, \(after\)"),
        ("{%- if messages and", "(before){%- if messages and", r"does not show \(before\)"),
        (
            "{{ '<|im_end|>\\n' }}\n{%- endfor",
            "{%- if not loop.last -%}<|im_end|>{%- else -%}<|endoftext|>{%- endif -%}\n{%- endfor",
            "in another way in the last turn than before .* Use the instruct checkpoint",
        ),
        (
            "message['role'] + '\\n' }}",
            "message['role'] + '\\n' }}{%- if loop.last -%}<think>{%- endif -%}",
            "in another way in the last turn than before .* Use the instruct checkpoint",
        ),
    ],
    ids=["none", "no image", "repeats the user", "other end", "thinking"],
)
def test_templates_that_cannot_be_used(tokenizer: PreTrainedTokenizerBase, encoder: Encoder, old, new, message: str) -> None:
    if old is not None:
        assert old in tokenizer.chat_template
    tokenizer.chat_template = old and tokenizer.chat_template.replace(old, new)
    with pytest.raises(DataError, match=f"^folder: found a .*{message}"):
        chat_marks(tokenizer, encoder.image_id, "folder")
