"""The safety benchmark: a base model and any number of experts on the same prompts, seeds and sampler."""

from .measures import Measures, load_measures
from .plan import Entrant, expert_key, plan_tasks, stacked, told_apart
from .report import BenchmarkReport
from .run import Bench, run_benchmark

__all__ = [
    "Bench",
    "BenchmarkReport",
    "Entrant",
    "Measures",
    "expert_key",
    "load_measures",
    "plan_tasks",
    "run_benchmark",
    "stacked",
    "told_apart",
]
