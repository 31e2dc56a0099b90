"""The nodes: each takes sockets and widgets, calls `training`, and returns sockets. One file per node.

To add a node: write its file, then add its line to `NODES`. ComfyUI imports every node when it starts, to
read its schema. Modules import at the top only what the schemas need, and everything else of `training`
inside the function that needs it, as `training.commands` does; `tests/test_architecture.py` checks this.
"""

from comfy_api.latest import ComfyExtension, io

from . import host
from .apply_safety_expert import ApplySafetyExpert
from .check_safety_stack import CheckSafetyStack
from .checked_values import with_checked_values
from .concept_stress import ConceptStress
from .concept_vector import ConceptVector
from .dual_latent import DualLatent
from .erasure_depth import ErasureDepth
from .extract_safety_expert import ExtractSafetyExpert
from .label_safety_pairs import LabelSafetyPairs
from .load_prompt_set import LoadPromptSet
from .load_safety_expert import LoadSafetyExpert
from .load_safety_pairs import LoadSafetyPairs
from .make_safety_pairs import MakeSafetyPairs
from .merge_safety_experts import MergeSafetyExperts
from .prompt_guard import PromptGuard
from .prompt_interpreter import PromptInterpreter
from .rewrite_prompts import RewritePrompts
from .safety_benchmark import SafetyBenchmark
from .safety_expert_info import SafetyExpertInfo
from .safety_gate import SafetyGate
from .safety_judge import SafetyJudge
from .save_safety_expert import SaveSafetyExpert
from .train_prompt_guard import TrainPromptGuard
from .train_prompt_interpreter import TrainPromptInterpreter
from .train_safety_cost import TrainSafetyCost
from .train_safety_dpo import TrainSafetyDPO

NODES: list[type[io.ComfyNode]] = [
    LoadSafetyExpert,
    ApplySafetyExpert,
    MergeSafetyExperts,
    TrainSafetyDPO,
    LoadSafetyPairs,
    SaveSafetyExpert,
    SafetyExpertInfo,
    ExtractSafetyExpert,
    SafetyJudge,
    MakeSafetyPairs,
    RewritePrompts,
    ConceptVector,
    ConceptStress,
    ErasureDepth,
    CheckSafetyStack,
    LoadPromptSet,
    SafetyBenchmark,
    PromptGuard,
    TrainPromptGuard,
    TrainSafetyCost,
    SafetyGate,
    DualLatent,
    LabelSafetyPairs,
    PromptInterpreter,
    TrainPromptInterpreter,
]


class AlignGuardExtension(ComfyExtension):
    """The extension that the host loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Register the model folder of the experts and return the nodes, which check what reaches them."""
        host.register_folders()
        return [with_checked_values(node) for node in NODES]
