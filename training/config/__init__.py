"""Options of every task: each default, range and tooltip once.

Nodes and the command line make their widgets and flags from these classes. To add a task: write its file and
export its class here.
"""

from .cost import CostConfig
from .guard import DualLatentConfig, GuardConfig, InterpretConfig
from .make import LabelConfig, MakeConfig, RewriteConfig
from .measure import AttackConfig, DepthConfig, EvaluateConfig, InversionConfig, StressConfig
from .merge import ExtractConfig, MergeConfig
from .option import MAX_STRENGTH, option_help, options
from .presets import PRESET_HELP, PRESETS, preset_text, preset_values
from .train import TrainConfig

__all__ = [
    "AttackConfig",
    "CostConfig",
    "DepthConfig",
    "DualLatentConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "GuardConfig",
    "InterpretConfig",
    "InversionConfig",
    "LabelConfig",
    "MAX_STRENGTH",
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
