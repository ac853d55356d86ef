"""Several checkpoints on the same questions: scores with confidence intervals, paired tests, and what is within noise.

statistics.py    bootstrap, McNemar's test, Holm's correction: arrays in, arrays out
evaluations.py   evaluation folders -> what each checkpoint made of each question; refuses different questions
comparison.py    the rows of the comparison: sets, benchmarks, and the means over them
tables.py        console, Markdown, JSON; picture.py: differences with their intervals
"""
