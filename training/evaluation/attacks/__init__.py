"""Attacks on one's own model, which measure how well its safety holds. Only rates come out.

Each attack has one file: `stress_curve` (pushed prompts), `token_inversion`, `zeroth_order` (a search over
word substitutions) and `worst_of_n` (its random baseline). An attack takes callables that draw and judge, and
returns an `AttackReport` or a `StressCurve`. No function here returns, keeps or logs a prompt that it made.

To add an attack: write its file here, add its names below, and write its action of the command `stress`,
which is one file in `training/commands/stress/` and one line of `ACTIONS` there.
"""

from .concept import (
    ConceptDirection,
    ConceptPair,
    ConceptPairs,
    concept_direction,
    parse_concept_pairs,
    read_concept_pairs,
    stressed,
)
from .report import ADAPTIVE, AttackReport, Outcome, Remember, find_anew, sum_over_processes
from .stress_curve import ETAS, StressCurve, StressPoint, stress_curve
from .substitution import SubstitutionTable, parse_substitutions
from .token_inversion import Encoder, ModelUnderTest, PushedPrompts, encoder_of, token_inversion_attack
from .worst_of_n import RandomRewordings, worst_of_n
from .zeroth_order import zeroth_order_attack

__all__ = [
    "ADAPTIVE",
    "ETAS",
    "AttackReport",
    "ConceptDirection",
    "ConceptPair",
    "ConceptPairs",
    "Encoder",
    "ModelUnderTest",
    "Outcome",
    "PushedPrompts",
    "RandomRewordings",
    "Remember",
    "StressCurve",
    "StressPoint",
    "SubstitutionTable",
    "concept_direction",
    "encoder_of",
    "find_anew",
    "parse_concept_pairs",
    "parse_substitutions",
    "read_concept_pairs",
    "stress_curve",
    "stressed",
    "sum_over_processes",
    "token_inversion_attack",
    "worst_of_n",
    "zeroth_order_attack",
]
