"""The safety benchmark: a base model and any number of experts on the same prompts, seeds and sampler."""

from .measures import Measures, load_measures
from .plan import Entrant, Task, expert_key, plan_tasks
from .report import REPORT_JSON, REPORT_PAGE, REPORT_PICTURE, BenchmarkReport
from .run import Bench, run_benchmark

__all__ = [
    "REPORT_JSON",
    "REPORT_PAGE",
    "REPORT_PICTURE",
    "Bench",
    "BenchmarkReport",
    "Entrant",
    "Measures",
    "Task",
    "expert_key",
    "load_measures",
    "plan_tasks",
    "run_benchmark",
]
