"""How a model's safety holds under stress: red-teaming of one's own model, of which only rates come out.

No function here returns, keeps or logs a prompt that it made.
"""

from .concept import ConceptDirection, concept_direction, stressed
from .concept_pairs import ConceptPair, ConceptPairs, parse_concept_pairs, read_concept_pairs
from .erasure_depth import ErasureDepth, erasure_depth, loss_gaps, measure_depth
from .safety_stack import SafetyStack, StackedLayer, safety_stack
from .stress_curve import ETAS, StressCurve, StressPoint, stress_curve

__all__ = [
    "ETAS",
    "ConceptDirection",
    "ConceptPair",
    "ConceptPairs",
    "ErasureDepth",
    "SafetyStack",
    "StackedLayer",
    "StressCurve",
    "StressPoint",
    "concept_direction",
    "erasure_depth",
    "loss_gaps",
    "measure_depth",
    "parse_concept_pairs",
    "read_concept_pairs",
    "safety_stack",
    "stress_curve",
    "stressed",
]
