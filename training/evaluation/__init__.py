"""Measuring models: judges of images, statistics, attacks and the benchmark.

The judges are exported here; `judges/` says how to add one, `attacks/` how to add an attack. What else is
measured is imported from its own module.
"""

from .judge import Judge, JudgeKind, Verdict, safety_of
from .judges import EVALUATORS, judge_choices, make_judge, refuse_unavailable
from .panel import RULES, Panel
from .scopes import SCOPES, Scan, scan
from .shown import ACTIONS, blurred, describe, hidden_pictures, let_through

__all__ = [
    "ACTIONS",
    "EVALUATORS",
    "RULES",
    "SCOPES",
    "Judge",
    "JudgeKind",
    "Panel",
    "Scan",
    "Verdict",
    "blurred",
    "describe",
    "hidden_pictures",
    "judge_choices",
    "let_through",
    "make_judge",
    "refuse_unavailable",
    "safety_of",
    "scan",
]
