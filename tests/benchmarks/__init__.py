"""What a cluster costs: measured against SQLAlchemy alone, on the same servers and in the same run.

`python -m tests.benchmarks` prints a table; see `docs/performance.md`. Only ratios mean something:
contenders take turns in small rounds, so that what else the machine does falls on all of them.
"""
