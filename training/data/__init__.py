"""Preference pairs. To add a source: write its file, then add its line here.

A source is a function of a folder that returns `SafetyPairs`, with a report of all it dropped.
"""

from .folder import NeutralSample, SafetyPairs, load_pairs
from .pairs_report import PairsReport

__all__ = ["PAIR_SOURCES", "NeutralSample", "PairsReport", "SafetyPairs", "load_pairs"]

PAIR_SOURCES = {"folder": load_pairs}
