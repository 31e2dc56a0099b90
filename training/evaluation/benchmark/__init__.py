"""The safety benchmark: a base model and any number of experts on the same prompts, seeds and sampler.

`plan` says what is drawn, `run` draws and judges it, `rows` holds one record per picture, `summary` makes
rates of them, `findings` gathers all numbers, and `report` shows them as JSON, text, picture and page.
"""

from .findings import Study
from .measures import Measures, load_measures
from .plan import Entrant, expert_key, plan_tasks, stacked, with_unique_names
from .report import BenchmarkReport
from .run import Bench, run_benchmark

__all__ = [
    "Bench",
    "BenchmarkReport",
    "Entrant",
    "Measures",
    "Study",
    "expert_key",
    "load_measures",
    "plan_tasks",
    "run_benchmark",
    "stacked",
    "with_unique_names",
]
