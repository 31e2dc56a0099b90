"""Measuring models: judges of images, statistics, attacks and the benchmark.

The judges are exported here; `judges/` says how to add one, `attacks/` how to add an attack. What else is
measured is imported from its own module.
"""

from .judge import Judge, JudgeKind, Verdict, safety_of
from .judges import EVALUATORS, judge_choices, make_judge, refuse_unavailable
from .panel import RULES, Panel, scan_frames
from .shown import blurred, describe, hidden_pictures

__all__ = [
    "EVALUATORS",
    "RULES",
    "Judge",
    "JudgeKind",
    "Panel",
    "Verdict",
    "blurred",
    "describe",
    "hidden_pictures",
    "judge_choices",
    "make_judge",
    "refuse_unavailable",
    "safety_of",
    "scan_frames",
]
