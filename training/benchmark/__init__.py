"""The safety benchmark: a base model and any number of experts on the same prompts, seeds and sampler."""

from .blocked_words import BlockedWords, read_blocked_words
from .measures import Measures, load_measures
from .plan import Entrant, expert_key, plan_tasks, stacked
from .report import BenchmarkReport
from .run import Bench, run_benchmark

__all__ = [
    "Bench",
    "BenchmarkReport",
    "BlockedWords",
    "Entrant",
    "Measures",
    "expert_key",
    "load_measures",
    "plan_tasks",
    "read_blocked_words",
    "run_benchmark",
    "stacked",
]
