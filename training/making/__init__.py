"""Preference pairs drawn by the model that is to be aligned, judged, and resumable at any moment."""

from .journal import MakingReport
from .make_pairs import Draw, make_pairs
from .prompt_pairs import PromptPair, PromptPairs, parse_prompt_pairs
from .weigh_pairs import WeighingReport, weigh_pairs

__all__ = [
    "Draw",
    "MakingReport",
    "PromptPair",
    "PromptPairs",
    "WeighingReport",
    "make_pairs",
    "parse_prompt_pairs",
    "weigh_pairs",
]
