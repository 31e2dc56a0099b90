"""How a model's safety holds under stress: red-teaming of one's own model, of which only rates come out.

No function here returns, keeps or logs a prompt that it made.
"""

from .concept import ConceptDirection, concept_direction, stressed
from .concept_pairs import ConceptPair, ConceptPairs, parse_concept_pairs, read_concept_pairs
from .stress_curve import ETAS, StressCurve, StressPoint, stress_curve

__all__ = [
    "ETAS",
    "ConceptDirection",
    "ConceptPair",
    "ConceptPairs",
    "StressCurve",
    "StressPoint",
    "concept_direction",
    "parse_concept_pairs",
    "read_concept_pairs",
    "stress_curve",
    "stressed",
]
