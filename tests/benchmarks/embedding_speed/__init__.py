"""Embeddings a second beside sentence-transformers' `encode`; `python -m tests.benchmarks.embedding_speed --help`."""
