"""Options of every task: each default, range and tooltip once. To add a task: write its file, export it here.

Nodes and the command line make their widgets and flags from these classes. Fields are only appended, since
saved graphs store widgets by position.
"""

from .attack import AttackConfig
from .depth import DepthConfig
from .evaluate import EvaluateConfig
from .extract import ExtractConfig
from .inversion import InversionConfig
from .make import MakeConfig
from .merge import MergeConfig
from .option import option_help, options
from .presets import PRESET_HELP, PRESETS, preset_text, preset_values
from .rewrite import RewriteConfig
from .stress import StressConfig
from .train import TrainConfig

__all__ = [
    "AttackConfig",
    "DepthConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "InversionConfig",
    "MakeConfig",
    "MergeConfig",
    "PRESETS",
    "PRESET_HELP",
    "RewriteConfig",
    "StressConfig",
    "TrainConfig",
    "option_help",
    "options",
    "preset_text",
    "preset_values",
]
