"""The wording in which a benchmark's question reaches the model: VLMEvalKit's prompts for Qwen2-VL.

Training data that rehearses a benchmark and the evaluation that runs it both call these functions, so that the two can never
drift apart by a space.
"""

import re
from collections.abc import Mapping

SELECT = "Please select the correct answer from the options above."
SELECT_CHINESE = "请直接回答选项字母。"
YES_NO = " Please answer yes or no."


def multiple_choice_prompt(question: str, options: Mapping[str, str], hint: str = "", always_english: bool = False) -> str:
    """A multiple-choice question as MMBench, MMStar and AI2D put it; with `always_english`, as MMMU does.

    Args:
        question: the question alone.
        options: letter -> text, in the order in which they are to be listed; without options the sentence that asks for a
            choice is left out, as VLMEvalKit leaves it out. Where any of the text is Chinese, the sentence is too.
        hint: shown above the question when not empty.
        always_english: MMMU's prompt, whose last sentence does not follow the text's language. Marks such as `<image 1>` stay in the
            text, and the images stand before it.
    """
    lines = [f"Hint: {hint}"] if hint else []
    lines.append(f"Question: {question}")
    if options:
        lines.append("Options:")
        lines += [f"{letter}. {text}" for letter, text in options.items()]
        chinese = not always_english and any(re.search("[\u4e00-\u9fff]", line) for line in lines)
        lines.append(SELECT_CHINESE if chinese else SELECT)
    return "\n".join(lines).rstrip()


def yes_no_prompt(question: str) -> str:
    """A yes/no question as HallusionBench puts it."""
    return question + YES_NO


def open_prompt(question: str) -> str:
    """An open question as MM-Vet puts it: the question and nothing else."""
    return question
