"""Throughput of the trainer beside what others would run, and beside the ceiling; `python -m tests.benchmarks.throughput --help`."""
