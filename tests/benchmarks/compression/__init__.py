"""What compression buys when questions are answered; `python -m tests.benchmarks.compression --help`."""
