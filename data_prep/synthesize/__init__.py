"""Synthetic question-answer data: an off-the-shelf vision-language model writes questions and answers about MMEB-train rows.

The room is here, not in `pipeline`: what is written is raw data (JSON lines that `sources.synqa` reads), the writer is any published
checkpoint without a chorus, opened by vLLM or transformers themselves, and Ray belongs to `data_prep`. Nothing of CREM's model is used.

    job        the Ray stage: rows -> journal -> JSON lines and a report
    journal    which rows are done, on disk, row by row
    author     one row -> its questions and answers (runs in the workers)
    engine     a checkpoint that writes, with transformers; vllm_engine: with vLLM (its only importer)
    dialect    question and image -> the checkpoint's own prompt tokens
    prompts    the prompt file; prompts.toml: the default one
    filters    which questions and answers are kept (pure)
"""
