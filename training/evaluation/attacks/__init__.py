"""How a model's safety holds under stress: red-teaming of one's own model, of which only rates come out.

No function here returns, keeps or logs a prompt that it made.
"""

from ..benchmark.genbreak import AttackedRow, BypassRates, bypass_rates, meaning_diversity, word_diversity
from ..erasure_depth import ErasureDepth, erasure_depth, loss_gaps, measure_depth
from ..safety_stack import SafetyStack, StackedLayer, safety_stack
from .concept import (
    ConceptDirection,
    ConceptPair,
    ConceptPairs,
    concept_direction,
    parse_concept_pairs,
    read_concept_pairs,
    stressed,
)
from .report import ADAPTIVE, AttackReport, Outcome, Remember, find_anew, of_all
from .stress_curve import ETAS, StressCurve, StressPoint, stress_curve
from .substitution import SubstitutionTable, parse_substitutions
from .token_inversion import Encoder, encoder_of, token_inversion_attack
from .zeroth_order import worst_of_n, zeroth_order_attack

__all__ = [
    "ADAPTIVE",
    "ETAS",
    "AttackReport",
    "AttackedRow",
    "BypassRates",
    "ConceptDirection",
    "ConceptPair",
    "ConceptPairs",
    "Encoder",
    "ErasureDepth",
    "Outcome",
    "Remember",
    "SafetyStack",
    "StackedLayer",
    "StressCurve",
    "StressPoint",
    "SubstitutionTable",
    "bypass_rates",
    "concept_direction",
    "encoder_of",
    "erasure_depth",
    "find_anew",
    "loss_gaps",
    "meaning_diversity",
    "measure_depth",
    "of_all",
    "parse_concept_pairs",
    "parse_substitutions",
    "read_concept_pairs",
    "safety_stack",
    "stress_curve",
    "stressed",
    "token_inversion_attack",
    "word_diversity",
    "worst_of_n",
    "zeroth_order_attack",
]
