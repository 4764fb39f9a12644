"""Arms compared on the same starts and batches: search, runs, pairing, statistics, verdict."""

from flatmin.compare.comparison import Comparison, compare
from flatmin.compare.executor import Executor, WorkerLost
from flatmin.compare.setting import Setting

__all__ = ["Comparison", "Executor", "Setting", "WorkerLost", "compare"]
